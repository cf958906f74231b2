"""What Prometheus reads: both of its parsers take it, it keeps its rules for names, and the figures are ours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from unittest import SkipTest

from tests.simulation import DELAY, PORT, SERVER, Echo
from tests.watch.test_watcher import WatcherTestCase
from twistedudp.watch import Settings, Target

try:
    from prometheus_client import generate_latest
    from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
    from prometheus_client.parser import text_string_to_metric_families as parse

    from twistedudp.watch._metrics import TargetCollector, registry_of
except ImportError as error:
    raise SkipTest(f"{error}: pip install 'twistedudp[probe]' brings it") from error

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric

NASTY = 'a "quoted" \\ name, {with} ünïcode'


_TYPE = re.compile(r"_(counter|gauge|histogram|summary|metric)s?(_|$)")
_UNIT = re.compile(r"_(ms|us|ns|milliseconds|microseconds|minutes|hours|bits|kb|percent)(_|$)")


def problems(families: dict[str, Metric], text: str) -> list[str]:
    """Return what ``promtool check metrics`` would complain of: its rules (promlint), by hand."""
    found = []
    for name, family in families.items():
        labels = {label for sample in family.samples for label in sample.labels}
        rules = {
            "no help text": family.documentation and "\n" not in family.documentation,
            "counters end in _total": family.type != "counter" or f"{name}_total" in text,
            "only counters end in _total": family.type == "counter" or not name.endswith("_total"),
            "the suffix is a histogram's": family.type == "histogram" or not re.search(r"_(count|sum|bucket)$", name),
            "its type is in its name": not _TYPE.search(name),
            "not a base unit": not _UNIT.search(name),
            "not snake_case": all(re.fullmatch(r"[a-z_]+", word) for word in (name, *labels)),
            "the label le is a histogram's": family.type == "histogram" or "le" not in labels,
        }
        found += [f"{name}: {rule}" for rule, kept in rules.items() if not kept]
    return found


class MetricsTests(WatcherTestCase):
    """A server that answers, one that does not, one whose name is unknown; and a name that is hard to write."""

    def scrape(self) -> tuple[dict[str, Metric], str]:
        """Return the families by name, and the text."""
        text = generate_latest(self.registry()).decode()
        return {family.name: family for family in parse(text)}, text

    def registry(self) -> CollectorRegistry:
        """Return a registry with the watcher in it."""
        return registry_of(TargetCollector(self.watcher, {"udpprobe_own": ("Its own.", lambda: 7)}))

    def value(self, name: str, **labels: str) -> float | None:
        """Return the value of one sample."""
        return self.registry().get_sample_value(name, labels)

    def setUp(self) -> None:
        """Probe for ten seconds."""
        super().setUp()
        self.serve(Echo())
        settings = Settings(interval=0.5, jitter=0.0, timeout=0.2)
        self.watcher.set_targets(
            {
                name: Target(name, host, port, settings)
                for name, host, port in (("web", SERVER, PORT), (NASTY, SERVER, PORT + 1), ("lost", "no.example", PORT))
            }
        )
        self.advance(10)

    def test_figures(self) -> None:
        """Each is the watcher's."""
        web = self.watcher.targets["web"]
        self.assertEqual(self.value("udpprobe_up", target="web"), 1)
        self.assertEqual(self.value("udpprobe_up", target=NASTY), 0)
        self.assertEqual(self.value("udpprobe_up", target="lost"), 0)
        self.assertEqual(self.value("udpprobe_state", target=NASTY, state="down"), 1)
        self.assertEqual(self.value("udpprobe_state", target=NASTY, state="up"), 0)
        self.assertEqual(self.value("udpprobe_state_changes_total", target="web", state="up"), 1)
        self.assertEqual(self.value("udpprobe_probes_sent_total", target="web"), web.sent)
        self.assertEqual(self.value("udpprobe_probes_received_total", target="web"), web.table.received)
        self.assertGreater(self.value("udpprobe_probes_lost_total", target=NASTY) or 0, 15)
        self.assertGreater(self.value("udpprobe_probes_unreachable_total", target=NASTY) or 0, 15)
        self.assertGreater(self.value("udpprobe_name_lookup_failures_total", target="lost") or 0, 0)
        self.assertEqual(self.value("udpprobe_window_loss_ratio", target=NASTY), 1)
        self.assertIsNone(self.value("udpprobe_window_loss_ratio", target="lost"))
        self.assertIsNone(self.value("udpprobe_window_rtt_seconds", target=NASTY, quantile="0.5"))
        median = self.value("udpprobe_window_rtt_seconds", target="web", quantile="0.5") or 0
        self.assertLess(abs(median - 2 * DELAY), 2 * DELAY / 16)
        self.assertEqual(self.value("udpprobe_targets"), 3)
        self.assertEqual(self.value("udpprobe_own_total"), 7)
        where = {"address": f"{SERVER}:{PORT}", "host": SERVER}
        self.assertEqual(self.value("udpprobe_target_info", target="web", **where), 1)

    def test_histogram(self) -> None:
        """Its buckets are cumulative, the last is its count, and its sum is that of the round trips."""
        families, _ = self.scrape()
        received = self.watcher.targets["web"].table.received
        buckets = [
            sample.value
            for sample in families["udpprobe_rtt_seconds"].samples
            if sample.name.endswith("_bucket") and sample.labels["target"] == "web"
        ]
        self.assertEqual(buckets, sorted(buckets))
        self.assertEqual(buckets[-1], received)
        self.assertEqual(self.value("udpprobe_rtt_seconds_bucket", target="web", le="0.001"), 0)
        self.assertEqual(self.value("udpprobe_rtt_seconds_bucket", target="web", le="0.0025"), received)
        self.assertEqual(self.value("udpprobe_rtt_seconds_count", target="web"), received)
        total = self.value("udpprobe_rtt_seconds_sum", target="web") or 0
        self.assertAlmostEqual(total, 2 * DELAY * received, places=6)

    def test_rules(self) -> None:
        """Names, units, types and texts are as promtool demands them, and those of the process are there."""
        families, text = self.scrape()
        own = {name: family for name, family in families.items() if name.startswith("udpprobe_")}
        self.assertGreater(len(own), 25)
        self.assertEqual(problems(own, text), [])
        self.assertIn("process_cpu_seconds", families)
        self.assertEqual(families["udpprobe_rtt_seconds"].type, "histogram")
        self.assertEqual(families["udpprobe_probes_sent"].type, "counter")

    def test_few_labels(self) -> None:
        """A target has its series and no others: their number does not depend on what comes from the network."""
        families, _ = self.scrape()
        for name, family in families.items():
            for sample in family.samples:
                if name.startswith("udpprobe_") and not sample.name.endswith("_info"):
                    self.assertLessEqual(set(sample.labels), {"target", "state", "quantile", "le", "kind"}, name)

    def test_openmetrics(self) -> None:
        """The newer format, which a Prometheus asks for, is right too."""
        text = generate_openmetrics(self.registry()).decode()  # type: ignore[no-untyped-call]  # nor have they
        families = {family.name: family for family in parse_openmetrics(text)}  # type: ignore[no-untyped-call]  # likewise
        self.assertEqual(families["udpprobe_build"].type, "info")
        self.assertEqual(families["udpprobe_up"].samples[0].labels, {"target": "web"})

    def test_names_come_back(self) -> None:
        """Any name of a target is the same after parsing."""
        families, _ = self.scrape()
        names = [sample.labels["target"] for sample in families["udpprobe_up"].samples]
        self.assertEqual(names, ["web", NASTY, "lost"])

    def test_unknown(self) -> None:
        """A target that has not answered yet is not up, and its state says so."""
        self.watcher.set_targets({"new": Target("new", SERVER, PORT + 2, Settings(interval=3600.0))})
        self.assertEqual(self.value("udpprobe_up", target="new"), 0)
        self.assertEqual(self.value("udpprobe_state", target="new", state="unknown"), 1)

    def test_oddities(self) -> None:
        """What was odd has a kind."""
        self.watcher.targets["web"].table.oddities["not_a_probe"] += 3
        self.assertEqual(self.value("udpprobe_oddities_total", target="web", kind="not_a_probe"), 3)

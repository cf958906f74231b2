"""Settings and targets, as options and as a file have them: what is right, and the line for what is wrong."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from twistedudp.errors import LocalError
from twistedudp.watch import SettingError, Settings, all_targets, checked_settings
from twistedudp.watch._target import MAX_TARGETS, parse_target
from twistedudp.watch._targets_file import MAX_FILE_SIZE, parse_targets, read_targets

RIGHT = """
[defaults]
interval = 5
protocol = "rpc"

[targets]
web = "192.0.2.1:7"
"the name server" = { address = "ns.example", interval = 0.5, degraded_rtt = 0.02 }

[targets.six]
address = "[2001:DB8:0::1]:10000"
protocol = "echo"
family = "ipv6"
"""


class SettingTests(SynchronousTestCase):
    """Each setting, as an option's text and as a file's value."""

    def refused(self, name: str, value: object, *, option: bool) -> str:
        """Return the line for a value that is wrong."""
        error = self.assertRaises(SettingError, checked_settings, {name: value}, Settings(), option=option)
        self.assertNotIn("\n", str(error))
        self.assertLess(len(str(error)), 300)
        self.assertIsInstance(error, LocalError)
        return str(error)

    def test_right(self) -> None:
        """Texts become what they mean; what is not given stays."""
        given = {"interval": "0.5", "size": "56", "protocol": "echo", "degraded_rtt": "0.25", "window": "10"}
        settings = checked_settings(given, Settings(timeout=3.0), option=True)
        self.assertEqual(
            settings, Settings(interval=0.5, size=56, protocol="echo", degraded_rtt=0.25, window=10, timeout=3.0)
        )
        self.assertEqual(checked_settings({"interval": 1, "jitter": 0}, Settings()), Settings(interval=1.0, jitter=0.0))

    def test_wrong(self) -> None:
        """Out of range, of another kind, not a number: the line names the setting, the value, and what to write."""
        for name, texts in (
            ("interval", ("0.09", "3601", "x", "", "nan", "inf", " 1", "1s", "-1")),
            ("jitter", ("-0.1", "1.1")),
            ("timeout", ("0", "61")),
            ("size", ("55", "65508", "64.5", "1e400", "9" * 5000)),
            ("protocol", ("tcp", "", "ECHO")),
            ("family", ("ipv5",)),
            ("window", ("9", "1001")),
            ("degraded_loss", ("0", "1.01", "5%")),
            ("degraded_rtt", ("0", "null", "None")),
            ("down_after", ("0", "101")),
            ("up_after", ("0", "101")),
        ):
            flag = f"--{name.replace('_', '-')}"
            for text in texts:
                line = self.refused(name, text, option=True)
                self.assertTrue(line.startswith(f"{flag}: {text[:50]!r}"[:55].rstrip("'")), line)
                self.assertIn(f"; write for example {flag} ", line)
        for name, value in (
            ("interval", "1"),
            ("interval", True),
            ("interval", float("nan")),
            ("interval", float("inf")),
            ("size", 64.5),
            ("size", [64]),
            ("protocol", 1),
            ("degraded_rtt", None),
        ):
            self.assertIn(f"{name}: {value!r} is not ", self.refused(name, value, option=False))

    def test_defaults_fit(self) -> None:
        """The example in each line is a value that is taken."""
        for field in msgspec.structs.fields(Settings):
            line = self.refused(field.name, "?", option=True)
            text = line.rsplit(" ", 1)[1]
            checked_settings({field.name: text}, Settings(), option=True)

    def test_unknown(self) -> None:
        """The nearest one is named."""
        error = self.assertRaises(SettingError, checked_settings, {"intervall": 1}, Settings(), where="defaults.")
        self.assertIn(
            "defaults.intervall: there is no such setting (did you mean 'interval'?); the settings are", str(error)
        )


class TargetTests(SynchronousTestCase):
    """``NAME=HOST:PORT``."""

    def test_right(self) -> None:
        """Names, numbers, IPv6, no port, no name."""
        for text, expected in (
            ("web=192.0.2.1:7", ("web", "192.0.2.1", 7)),
            ("a b = ns.example:7", ("a b", "ns.example", 7)),
            ("web=ns.example", ("web", "ns.example", 10000)),
            ("six=[2001:DB8:0::1]:7", ("six", "2001:db8::1", 7)),
            ("mapped=[::ffff:192.0.2.1]:7", ("mapped", "192.0.2.1", 7)),
            ("ns.example:7", ("ns.example:7", "ns.example", 7)),
            ("größe=[::1]", ("größe", "::1", 10000)),
        ):
            self.assertEqual(parse_target(text, Settings())[:3], expected)

    def test_wrong(self) -> None:
        """What cannot be a target, in a line."""
        for text, expected in (
            ("", "'' is not a name: it has 1 to 100 printable characters"),
            ("=192.0.2.1:7", "'' is not a name"),
            ("x" * 101 + "=192.0.2.1:7", "is not a name"),
            ("a\nb=192.0.2.1:7", r"'a\nb' is not a name"),
            ("\udcff=192.0.2.1:7", "is not a name"),
            ("web=", "has no host"),
            ("web=192.0.2.1:0", "'0' is not a port: it must be a number from 1 to 65535"),
            ("web=192.0.2.1:x", "'x' is not a port"),
            ("web=a b:7", "has a space in its host"),
            ("web=224.0.0.1:7", "224.0.0.1 is a broadcast or multicast address; name the servers one by one"),
            ("web=0.0.0.0:7", "that means every address of a machine"),
            ("web=" + "x" * 70 + ":7", "no host can have such a name"),
        ):
            error = self.assertRaises(SettingError, parse_target, text, Settings())
            self.assertIn(expected, str(error))
            self.assertNotIn("\n", str(error))
        error = self.assertRaises(SettingError, parse_target, "web=[::1]:7", Settings(family="ipv4"))
        self.assertEqual(str(error), "::1 is no ipv4 address; leave family out, or name another address")


class FileTests(SynchronousTestCase):
    """The file of targets."""

    def refused(self, text: str) -> str:
        """Return the line for a text that is wrong."""
        error = self.assertRaises(SettingError, parse_targets, text, Settings())
        self.assertNotIn("\n", str(error))
        return str(error)

    def test_right(self) -> None:
        """Texts and tables; a target's own settings go before the file's, and those before the options'."""
        targets = parse_targets(RIGHT, Settings(timeout=3.0, interval=9.0))
        self.assertEqual([target[:3] for target in targets.values()], [
            ("web", "192.0.2.1", 7), ("the name server", "ns.example", 10000), ("six", "2001:db8::1", 10000),
        ])  # fmt: skip
        self.assertEqual([target.settings for target in targets.values()], [
            Settings(timeout=3.0, interval=5.0, protocol="rpc"),
            Settings(timeout=3.0, interval=0.5, protocol="rpc", degraded_rtt=0.02),
            Settings(timeout=3.0, interval=5.0, protocol="echo", family="ipv6"),
        ])  # fmt: skip

    def test_wrong(self) -> None:
        """What is wrong, where, and what to write."""
        for text, expected in (
            ("[targets", "it is not TOML: "),
            ("[targets]\nweb = x", "(at line 2"),
            ("[targets]\nweb = 'a:1'\nweb = 'b:1'", "it is not TOML: "),
            ("", 'targets: there are none; write for example [targets] with the line web = "192.0.2.1:10000"'),
            ("[targets]", "targets: there are none"),
            ("target = 1", "target: there is no such key; the tables are [defaults] and [targets]"),
            ("targets = 1", "targets: 1 is not a table; write [targets] with a line for each"),
            ("[[targets]]\nname = 'x'", "targets: [{'name': 'x'}] is not a table"),
            ("defaults = 1\n[targets]\nweb = 'a'", "defaults: 1 is not a table"),
            ("[defaults]\ninterval = 0\n", "defaults.interval: 0 is not a number of seconds from 0.1 to 3600; write"),
            ('"a\\nb" = 1', r"'a\nb': there is no such key"),
            ('[targets]\n"a\\nb" = 1', r"targets.'a\nb': 1 is neither"),
            ('[targets.web]\naddress = "a"\n"a\\nb" = 1', r"targets.web.'a\nb': there is no such setting"),
            ("[targets]\nweb = 7", 'targets.web: 7 is neither a text nor a table; write web = "HOST:PORT"'),
            ("[targets.web]\ninterval = 1", 'targets.web.address: it is missing; write address = "HOST:PORT"'),
            ("[targets.web]\naddress = 1", 'targets.web.address: 1 is not a text; write address = "HOST:PORT"'),
            ("[targets.web]\naddress = 'a'\nsize = 'big'", "targets.web.size: 'big' is not a whole number of bytes"),
            ("[targets.web]\naddress = 'a'\nintervall = 1", "targets.web.intervall: there is no such setting (did you"),
            ("[targets]\nweb = 'a:b'", "targets.web: 'b' is not a port"),
            ("[targets]\n'' = 'a'", "targets.: '' is not a name"),
        ):  # fmt: skip
            self.assertIn(expected, self.refused(text))

    def path(self) -> Path:
        """Return where a file may be until the end of the test."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        return Path(directory.name) / "targets.toml"

    def test_too_deep(self) -> None:
        """A text that nests without end is refused, not followed."""
        self.assertTrue(self.refused("targets = " + "[" * 100000))

    def test_too_many_digits(self) -> None:
        """A number that Python does not read for its length is refused like any other mistake."""
        for text in ("[defaults]\nsize = " + "9" * 5000, "[targets.web]\naddress = 'a'\ninterval = " + "9" * 5000):
            self.assertIn("it has a value that cannot be read: ", self.refused(text))

    def test_pipe(self) -> None:
        """A pipe, of which SIGHUP would wait for a writer, is refused at once."""
        path = self.path()
        os.mkfifo(path)
        self.patch(Path, "open", lambda *_, **__: self.fail("it was opened, which waits for a writer"))
        error = self.assertRaises(SettingError, read_targets, path, Settings())
        self.assertEqual(str(error), f"{path}: it is a pipe, which cannot be read again; name a regular file")

    def test_file(self) -> None:
        """What is wrong with the file itself is told with its path."""
        path = self.path()
        error = self.assertRaises(SettingError, read_targets, path, Settings())
        self.assertEqual(str(error), f"{path}: No such file or directory; name a file that this user can read")
        path.write_bytes(b"[targets]\n# \xff\n")
        error = self.assertRaises(SettingError, read_targets, path, Settings())
        self.assertEqual(str(error), f"{path}: byte 12 is not UTF-8; a TOML file is")
        path.write_bytes(b"#" * (MAX_FILE_SIZE + 1))
        error = self.assertRaises(SettingError, read_targets, path, Settings())
        self.assertIn(f"{path}: it has more than 4,194,304 bytes", str(error))
        path.write_text("[targets]\nweb = 'a:b'\n", encoding="utf-8")
        error = self.assertRaises(SettingError, read_targets, path, Settings())
        self.assertEqual(str(error), f"{path}: targets.web: 'b' is not a port: it must be a number from 1 to 65535")
        path.write_text(RIGHT, encoding="utf-8")
        self.assertEqual(len(read_targets(path, Settings())), 3)

    def test_all(self) -> None:
        """Options and a file together; each name once; not none and not too many."""
        path = self.path()
        path.write_text(RIGHT, encoding="utf-8")
        self.assertEqual(
            list(all_targets(["a=b", "c=d"], path, Settings())), ["a", "c", "web", "the name server", "six"]
        )
        for texts, file, expected in (
            ([], None, "there is no target; write for example --target web=127.0.0.1:10000, or --targets FILE"),
            (["a=b", "a=c"], None, "--target: 'a' is given twice; each target has a name of its own"),
            (["web=b"], path, f"{path}: targets.web: --target names one so already; give it another name"),
            (["a=b:x"], None, "--target: 'x' is not a port"),
            ([f"t{number}=192.0.2.1" for number in range(MAX_TARGETS + 1)], None, "there are 10,001 targets; one"),
        ):
            error = self.assertRaises(SettingError, all_targets, texts, file, Settings())
            self.assertIn(expected, str(error))

"""The tokens that prove an address: whose they are, how long they are good, and the file that processes share."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from twistedudp._address_tokens import MIN_KEY_SIZE, SLOT, AddressTokens, read_token_key
from twistedudp.errors import LocalError

KEY = bytes(range(32))
HOST, OTHER = "192.0.2.1", "192.0.2.2"
MINUTE = 60_000_000_000
HOUR = 60 * MINUTE


class TokenTests(SynchronousTestCase):
    """Tokens of one master secret or two, on a clock that the test sets."""

    def setUp(self) -> None:
        """Set the clock to the beginning of a slot in the middle of an hour."""
        self.now = 500_000 * HOUR + 30 * MINUTE
        self.tokens = self.make()

    def make(self, key: bytes = KEY) -> AddressTokens:
        """Return what another process with a secret would have."""
        return AddressTokens(key, lambda: self.now)

    def test_own(self) -> None:
        """A token is 16 bytes, and good for its host in every process with this secret."""
        token = self.tokens.token_of(HOST)
        self.assertEqual((type(token), len(token)), (bytes, 16))
        self.assertTrue(self.tokens.is_valid_untrusted(token, HOST))
        self.assertTrue(self.make().is_valid_untrusted(token, HOST))
        self.assertEqual(self.make().token_of(HOST), token)

    def test_other_hosts(self) -> None:
        """It is good for no other host; an IPv6 address counts whole."""
        for host, other in ((HOST, OTHER), ("2001:db8::1", "2001:db8::2"), ("fe80::1%a", "fe80::1%b"), ("::1", "::")):
            self.assertFalse(self.tokens.is_valid_untrusted(self.tokens.token_of(host), other))

    def test_mapped(self) -> None:
        """An IPv4 address is the same through a dual-stack socket."""
        self.assertTrue(self.tokens.is_valid_untrusted(self.tokens.token_of(f"::ffff:{HOST}"), HOST))

    def test_other_secret(self) -> None:
        """It is good nowhere else."""
        token = self.tokens.token_of(HOST)
        for key in (bytes(32), KEY + b"\0", KEY[::-1]):
            self.assertFalse(self.make(key).is_valid_untrusted(token, HOST))

    def test_forged(self) -> None:
        """Nothing else is one: no bit may be another, none missing, none too many."""
        token = self.tokens.token_of(HOST)
        for bit in range(8 * len(token)):
            forged = bytearray(token)
            forged[bit // 8] ^= 1 << bit % 8
            self.assertFalse(self.tokens.is_valid_untrusted(bytes(forged), HOST))
        for wrong in (b"", token[:-1], token + b"\0", bytes(16), token[:1] + bytes(15)):
            self.assertFalse(self.tokens.is_valid_untrusted(wrong, HOST))

    def test_age(self) -> None:
        """It is good for two to four minutes, and for a clock that is two minutes behind."""
        for offset in (0, MINUTE, 2 * MINUTE - 1):
            self.setUp()
            self.now += offset
            token = self.tokens.token_of(HOST)
            start = self.now - self.now % (SLOT * 1_000_000_000)
            for later, good in (
                (-2 * MINUTE - 1, False), (-2 * MINUTE, True), (-1, True), (4 * MINUTE - 1, True), (4 * MINUTE, False),
                (HOUR, False), (256 * 2 * MINUTE, False), (257 * 2 * MINUTE, False),
            ):  # fmt: skip
                self.now = start + later
                self.assertEqual(self.tokens.is_valid_untrusted(token, HOST), good, (offset, later))

    def test_rotation(self) -> None:
        """Keys change with the hour, and a token of the last minutes of one is good in the next."""
        self.now = 500_001 * HOUR - 1
        before = self.tokens.token_of(HOST)
        self.now += 1
        after = self.tokens.token_of(HOST)
        self.assertNotEqual(before[1:], after[1:])
        for _ in range(2):  # back and forth
            for tokens in (self.tokens, self.make()):
                self.assertTrue(tokens.is_valid_untrusted(before, HOST))
                self.assertTrue(tokens.is_valid_untrusted(after, HOST))
        self.assertEqual(len(self.tokens._keys), 2)
        for _ in range(100):
            self.now += HOUR
            self.tokens.token_of(HOST)
        self.assertLessEqual(len(self.tokens._keys), 2)

    def test_short_secret(self) -> None:
        """A secret that could be guessed is refused."""
        error = self.assertRaises(LocalError, AddressTokens, bytes(31), lambda: 0)
        self.assertEqual(str(error), "a token key of 31 bytes is too short; it must have 32 or more")


class KeyFileTests(SynchronousTestCase):
    """The file with the secret."""

    def setUp(self) -> None:
        """Make a folder for them."""
        folder = tempfile.TemporaryDirectory()  # mktemp() leaves its files behind under pytest
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def file(self, content: bytes = KEY, mode: int = 0o600) -> Path:
        """Return a file."""
        path = self.folder / f"key{mode}"
        path.write_bytes(content)
        path.chmod(mode)
        return path

    def assertRefused(self, path: Path, reason: str) -> None:
        """Check that a file is refused in one line that says why and what to do."""
        error = self.assertRaises(LocalError, read_token_key, path)
        self.assertRegex(str(error), f"^the token key file {path} {reason}")
        self.assertRegex(
            str(error), r"(; make one by: \(umask 077; head -c 32 /dev/urandom > FILE\)|; run: chmod o= .*)$"
        )
        self.assertNotIn("\n", str(error))

    def test_good(self) -> None:
        """What is in it is the secret, whole; its group may read it."""
        for content, mode in ((KEY, 0o600), (KEY * 4 + b"\n", 0o640), (b"\n" * 32, 0o400)):
            self.assertEqual(read_token_key(self.file(content, mode)), content)

    def test_missing(self) -> None:
        """There is none, or it is no file."""
        self.assertRefused(self.folder / "none", r"cannot be read \(No such file or directory\)")
        self.assertRefused(self.folder, "is no file")
        pipe = self.folder / "pipe"
        os.mkfifo(pipe, 0o600)
        self.assertRefused(pipe, "is no file")

    def test_unreadable(self) -> None:
        """It is somebody else's."""
        path = self.file(mode=0)
        if os.access(path, os.R_OK):
            path = Path("/proc/self/mem/x")  # root reads everything: take what is no folder
        self.assertRefused(path, r"cannot be read \((Permission denied|Not a directory)\)")

    def test_size(self) -> None:
        """It is too short or much too long."""
        self.assertRefused(self.file(b""), r"is too short \(nothing in it\)")
        self.assertRefused(self.file(bytes(MIN_KEY_SIZE - 1)), r"is too short \(31 bytes\)")
        self.assertRefused(self.file(bytes(65537)), "is too large for one")

    def test_open_to_everybody(self) -> None:
        """Everybody can read or change it."""
        for mode in (0o604, 0o602, 0o644, 0o777):
            path = self.file(mode=mode)
            self.assertRefused(path, "is open to everybody, and so no secret")
            path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o7)
            self.assertEqual(read_token_key(path), KEY)

"""What Twisted finds of twistedudp: its three commands for ``twistd``, and the protocols that it serves by itself."""

from twisted.application.service import ServiceMaker

from twistedudp.plugins import DatagramPlugin

udpecho = ServiceMaker(  # type: ignore[no-untyped-call]  # Twisted has no annotation here
    "twistedudp", "twistedudp.tap", "Serve a UDP protocol: echo, your own methods, or a plugin.", "udpecho"
)

udpimpair = ServiceMaker(  # type: ignore[no-untyped-call]  # Twisted has no annotation here
    "twistedudp bad network",
    "twistedudp.impair_tap",
    "Relay UDP between clients and a server over a bad network.",
    "udpimpair",
)

udpprobe = ServiceMaker(  # type: ignore[no-untyped-call]  # Twisted has no annotation here
    "twistedudp probes",
    "twistedudp.probe_tap",
    "Probe UDP servers all the time, and tell how they are.",
    "udpprobe",
)

echo = DatagramPlugin("echo", "twistedudp.echo:EchoProtocol", "RFC 862: every datagram goes back as it came.")

rpc = DatagramPlugin(
    "rpc",
    "twistedudp.rpc:rpc_protocol",
    "MessagePack-RPC: the methods of the class that --protocol-option class=module:Class names.",
)

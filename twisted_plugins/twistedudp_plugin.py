"""What Twisted finds of twistedudp: the command ``twistd udpecho``, and the protocols that it serves by itself."""

from twisted.application.service import ServiceMaker

from twistedudp.plugins import DatagramPlugin

udpecho = ServiceMaker(  # type: ignore[no-untyped-call]  # Twisted has no annotation here
    "twistedudp", "twistedudp.tap", "Serve a UDP protocol: echo, your own methods, or a plugin.", "udpecho"
)

echo = DatagramPlugin("echo", "twistedudp.echo:EchoProtocol", "RFC 862: every datagram goes back as it came.")

rpc = DatagramPlugin(
    "rpc",
    "twistedudp.rpc:rpc_protocol",
    "MessagePack-RPC: the methods of the class that --protocol-option class=module:Class names.",
)

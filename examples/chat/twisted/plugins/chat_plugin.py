"""Makes the chat room known to ``twistd udpecho``; lives in a directory twisted/plugins on the import path."""

from twistedudp import DatagramPlugin

chat = DatagramPlugin("chat", "chat:ChatRoom", "A chat room: a message reaches all who spoke in the last minute.")

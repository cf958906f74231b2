"""The request and response rules of twistedudp, without any I/O."""

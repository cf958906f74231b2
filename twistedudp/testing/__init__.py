"""A network in a box: public, for the tests of programs that use twistedudp or any Twisted UDP protocol."""

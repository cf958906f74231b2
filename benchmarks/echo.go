// Go's echo server: one goroutine, one socket. It says {"port": N} on standard output, and ends with standard input.

package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
)

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "echo.go:", err)
		os.Exit(3)
	}
}

func main() {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(os.Args[1])})
	fail(err)
	fail(conn.SetReadBuffer(4 << 20))
	port := conn.LocalAddr().(*net.UDPAddr).Port
	fmt.Printf("{\"port\": %d, \"version\": %q}\n", port, runtime.Version())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	payload := make([]byte, 65536)
	for {
		size, peer, err := conn.ReadFromUDPAddrPort(payload)
		fail(err)
		_, err = conn.WriteToUDPAddrPort(payload[:size], peer)
		fail(err)
	}
}

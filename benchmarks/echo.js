// Node's echo server. It says {"port": N} on standard output, and ends with standard input.
"use strict";

const socket = require("dgram").createSocket("udp4");

socket.on("message", (payload, peer) => socket.send(payload, peer.port, peer.address));
socket.on("error", (error) => {
  console.error(`echo.js: ${error.message}`);
  process.exit(3);
});
socket.bind({ address: process.argv[2], port: 0 }, () => {
  socket.setRecvBufferSize(4 << 20);
  console.log(JSON.stringify({ port: socket.address().port, version: process.version }));
});
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));

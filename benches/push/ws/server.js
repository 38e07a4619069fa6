// `ws` as its documentation broadcasts: to each client of a topic that is open, with pings that find dead ones. Who comes
// to `/echo` hears what it says.
import { createServer } from "node:http";
import { createRequire } from "node:module";

const [port, modules] = process.argv.slice(2);
const { WebSocketServer, WebSocket } = createRequire(modules + "/")("ws");
const topics = new Map();

const server = createServer((request, response) => {
  if (request.method !== "POST") return response.end("hello world");
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const data = Buffer.concat(parts);
    const clients = topics.get(request.url) ?? new Set();
    for (const client of clients) if (client.readyState === WebSocket.OPEN) client.send(data, { binary: false });
    response.end(JSON.stringify({ subscribers: clients.size }));
  });
});

const sockets = new WebSocketServer({ server });
sockets.on("connection", (client, request) => {
  const topic = topics.get(request.url) ?? new Set();
  topics.set(request.url, topic.add(client));
  client.alive = true;
  client.on("pong", () => (client.alive = true));
  client.on("error", () => {});
  if (request.url === "/echo") client.on("message", (data, binary) => client.send(data, { binary }));
  client.on("close", () => topic.delete(client));
});
setInterval(() => {
  for (const client of sockets.clients) {
    if (!client.alive) client.terminate();
    client.alive = false;
    client.ping();
  }
}, 15_000);
server.listen({ port: Number(port), host: "127.0.0.1", backlog: 4096 });

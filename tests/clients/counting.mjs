// A client of ws (npm) whose every message is to be answered with how many there were.
//
//   node counting.mjs URL     a line of JSON for each line of input: answers, what was wrong, how it was closed
//
// ws is found in NODE_PATH, which only require() looks at.

import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const WebSocket = createRequire(import.meta.url)('ws');
const seen = { answers: 0, wrong: [], closed: null };
const socket = new WebSocket(process.argv[2]);
socket.on('open', () => socket.send('next'));
socket.on('message', (data) => {
  if (String(data) === String(seen.answers + 1)) seen.answers += 1;
  else seen.wrong.push(`${data} instead of ${seen.answers + 1}`);
  setTimeout(() => socket.readyState === WebSocket.OPEN && socket.send('next'), 2);
});
socket.on('error', (error) => seen.wrong.push(String(error)));
socket.on('close', (code) => { seen.closed = code; });
createInterface({ input: process.stdin })
  .on('line', () => console.log(JSON.stringify(seen)))
  .on('close', () => { socket.close(); setTimeout(() => process.exit(), 200); });

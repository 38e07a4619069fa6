// Clients of sockjs-client that send numbered messages at a steady pace, and hold each echo against what they have sent: for
// a page in a browser and for Node alike.
//
//   node talkers.cjs PACE '{"TRANSPORT": URL, …}'     for each line of input a line of JSON: of each transport what it has seen
//
// `look` only says it, `mark` also begins the longest wait anew, `quiet` sends no more. sockjs-client is found in NODE_PATH.

'use strict';

// With what the transports have to escape, each of them other characters.
function text(number) {
  return `${number} "%25\u2028<ä/>" ${'-'.repeat(40)}`;
}

function talker(SockJS, pace, transport, url) {
  const seen = { sent: 0, heard: 0, worst: 0, opened: 0, wrong: [], closed: null, transport: null };
  const times = [];
  // One that is slow to open is not to be given up for that.
  const socket = new SockJS(url, null, { transports: [transport], timeout: 20000 });
  let timer;
  socket.onopen = () => {
    seen.opened += 1;
    timer = setInterval(() => {
      seen.sent += 1;
      times[seen.sent] = performance.now();
      socket.send(text(seen.sent));
    }, pace);
  };
  socket.onmessage = ({ data }) => {
    if (data !== text(seen.heard + 1)) {
      if (seen.wrong.length < 5) seen.wrong.push(`${data} instead of ${seen.heard + 1}`);
      return;
    }
    seen.heard += 1;
    seen.worst = Math.max(seen.worst, performance.now() - times[seen.heard]);
  };
  socket.onclose = ({ code, reason }) => {
    clearInterval(timer);
    seen.closed = `${code} ${reason}`;
  };
  return (what) => {
    if (what === 'quiet') clearInterval(timer);
    const said = { ...seen, transport: socket.transport };
    if (what === 'mark') seen.worst = 0;
    return said;
  };
}

function talk(SockJS, pace, urls) {
  const talkers = Object.entries(urls).map(([name, url]) => [name, talker(SockJS, pace, name, url)]);
  return (what) => Object.fromEntries(talkers.map(([name, ask]) => [name, ask(what)]));
}

if (typeof process === 'object') {
  const [pace, urls] = process.argv.slice(2);
  const ask = talk(require('sockjs-client'), Number(pace), JSON.parse(urls));
  require('node:readline').createInterface({ input: process.stdin })
    .on('line', (what) => console.log(JSON.stringify(ask(what))))
    .on('close', () => process.exit());
}

// Subscribers that note what they hear: for a page in a browser and for Node alike.
//
//   node subscribers.mjs stream|poll URL     a line of JSON whenever it has heard something, until its input ends
//
// `heard` has the numbers that were published and "gap", `opened` the streams or answers, `errors` what went wrong.
// The eventsource of npm is found in NODE_PATH, which only require() looks at.

function nobody() {
  return { heard: [], opened: 0, errors: [] };
}

export function stream(EventSource, url) {
  const seen = nobody();
  const source = new EventSource(url);
  source.onopen = () => { seen.opened += 1; };
  source.onmessage = (event) => seen.heard.push(Number(event.data));
  source.addEventListener('@gap', (event) => seen.heard.push(JSON.parse(event.data).to ? 'gap' : event.data));
  source.onerror = (event) => seen.errors.push(`${event.message ?? 'error'}, state ${source.readyState}`);
  return seen;
}

export function poll(url) {
  const seen = nobody();
  const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
  (async () => {
    let since = 'start';
    while (true) {
      try {
        const answer = await fetch(`${url}?wait=20&since=${since}`, { headers: { accept: 'application/json' } });
        if (answer.status !== 200) throw new Error(`${answer.status}`);
        const { messages, last, gap } = await answer.json();
        seen.opened += 1;
        if (gap) seen.heard.push('gap');
        for (const { data } of messages) seen.heard.push(Number(data));
        since = last;
      } catch (error) {
        seen.errors.push(`${error}`);
        await pause(500);
      }
    }
  })();
  return seen;
}

if (globalThis.process?.versions?.node) {
  const { createRequire } = await import('node:module');
  const { subscribe } = await import('node:diagnostics_channel');
  const { EventSource } = createRequire(import.meta.url)('eventsource');
  const [how, url] = process.argv.slice(2);
  const seen = how === 'poll' ? poll(url) : stream(EventSource, url);
  // Both use Node's fetch, and that says when it connects.
  seen.connections = 0;
  subscribe('undici:client:connected', () => { seen.connections += 1; });
  let said;
  setInterval(() => {
    const text = JSON.stringify(seen);
    if (text !== said) console.log(said = text);
  }, 50);
  process.stdin.on('end', () => process.exit()).resume();
}

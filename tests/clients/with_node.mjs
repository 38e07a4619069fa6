// Node's fetch, its http.Agent, and undici's Pool with pipelining. One line for each check: the verdict, what was
// checked and what there was, with tabs between.
//
//   node with_node.mjs fetch|uploads|agent|pool SITE LAB DIRECTORY
//   node with_node.mjs session LAB       asks until its input ends, then says what it has seen
//
// undici is found in NODE_PATH, which only require() looks at.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import http from 'node:http';

const { Pool } = createRequire(import.meta.url)('undici');
const [mode, site, lab, directory] = process.argv.slice(2);
const sha256 = (data) => createHash('sha256').update(data).digest('hex');
const file = (name) => readFileSync(`${directory}/${name}`);

function equal(what, found, expected) {
  const [a, b] = [JSON.stringify(found), JSON.stringify(expected)];
  console.log([a === b ? 'ok' : 'FAILED', what, `${a} and not ${b}`].join('\t'));
  if (a !== b) process.exitCode = 1;
}

async function* pieces(data) {
  for (let at = 0; at < data.length; at += 65536) yield data.subarray(at, at + 65536);
}

async function withFetch() {
  const [page, data] = [file('page.html'), file('data.bin')];
  const get = async (url, options) => {
    const answer = await fetch(url, options);
    return [answer.status, sha256(Buffer.from(await answer.arrayBuffer())), answer.headers];
  };
  for (const name of ['page.html', 'data.bin', 'empty.txt']) {
    for (let turn = 0; turn < 5; turn += 1) {
      const [status, body] = await get(`${site}/${name}`);
      equal(`node fetch, ${name}, ${turn + 1}: right bytes`, [status, body], [200, sha256(file(name))]);
    }
  }
  const hash = createHash('sha256');
  for await (const piece of (await fetch(`${site}/data.bin`)).body) hash.update(piece);
  equal('node fetch, streaming download: right bytes', hash.digest('hex'), sha256(data));
  const [partly, part] = await get(`${site}/data.bin`, { headers: { range: 'bytes=5-1000004' } });
  equal('node fetch, range: 206, right bytes', [partly, part], [206, sha256(data.subarray(5, 1000005))]);
  const [, , headers] = await get(`${site}/page.html`);
  const [unchanged, nothing] = await get(`${site}/page.html`, { headers: { 'if-none-match': headers.get('etag') } });
  equal('node fetch, If-None-Match: 304 without a body', [unchanged, nothing], [304, sha256('')]);
}

async function withFetchUploads() {
  const data = file('data.bin');
  for (const [what, body] of [['by length', data], ['chunked', pieces(data)]]) {
    const answer = await fetch(`${lab}/echo`, { method: 'POST', body, duplex: 'half' });
    const back = sha256(Buffer.from(await answer.arrayBuffer()));
    equal(`node fetch, upload ${what}: the same bytes came back`, [answer.status, back], [200, sha256(data)]);
  }
}

async function withAgent() {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const send = (url, options, body) => new Promise((resolve, reject) => {
    const request = http.request(url, { agent, ...options }, async (answer) => {
      const parts = [];
      for await (const part of answer) parts.push(part);
      resolve([answer.statusCode, sha256(Buffer.concat(parts)), request.reusedSocket]);
    });
    request.on('error', reject);
    request.end(body);
  });
  const page = sha256(file('page.html'));
  const answers = [await send(`${site}/page.html`, {})];
  for (let turn = 0; turn < 50; turn += 1) answers.push(await send(`${site}/page.html`, {}));
  equal('node http.Agent: right bytes', answers.filter(([status, body]) => status === 200 && body === page).length, 51);
  equal('node http.Agent: sockets used again by its own count: 50', answers.filter(([, , again]) => again).length, 50);
  const [status, body] = await send(`${site}/page.html`, { method: 'HEAD' });
  equal('node http.Agent, HEAD', [status, body], [200, sha256('')]);
  agent.destroy();
}

async function withPool() {
  const pool = new Pool(site, { connections: 2, pipelining: 8 });
  let opened = 0;
  pool.on('connect', () => { opened += 1; });
  const names = ['page.html', 'small.txt', 'empty.txt'];
  const expected = names.map((name) => sha256(file(name)));
  const answers = await Promise.all(Array.from({ length: 600 }, async (_, n) => {
    const { statusCode, body } = await pool.request({ path: `/${names[n % 3]}`, method: 'GET' });
    return statusCode === 200 && sha256(Buffer.from(await body.arrayBuffer())) === expected[n % 3];
  }));
  equal('undici Pool, 600 pipelined by 8: right bytes', answers.filter(Boolean).length, 600);
  equal('undici Pool: connections by its own count: 2', opened, 2);
  await pool.close();
}

async function session() {
  const pool = new Pool(site, { connections: 1, pipelining: 4 });
  const seen = { requests: 0, failures: [], connections: 0 };
  pool.on('connect', () => { seen.connections += 1; });
  let ended = false;
  process.stdin.on('end', () => { ended = true; }).resume();
  const data = Buffer.alloc(100000, 'body');
  const asked = [['GET', '/hello', undefined, sha256('hello world')], ['POST', '/echo', data, sha256(data)],
    ['GET', '/bytes/200000', undefined, sha256(Buffer.alloc(200000, 'x'))]];
  while (!ended) {
    await Promise.all(asked.map(async ([method, path, body, expected]) => {
      try {
        const answer = await pool.request({ method, path, body });
        const found = sha256(Buffer.from(await answer.body.arrayBuffer()));
        if (answer.statusCode !== 200 || found !== expected) throw new Error(`${answer.statusCode} with wrong bytes`);
        seen.requests += 1;
      } catch (error) {
        seen.failures.push(`${method} ${path}: ${error}`);
      }
    }));
    console.log(seen.requests);
    await new Promise((resolve) => { setTimeout(resolve, 2); });
  }
  await pool.close();
  console.log(JSON.stringify(seen));
}

await { fetch: withFetch, uploads: withFetchUploads, agent: withAgent, pool: withPool, session }[mode]();

// What Node's HTTP clients meet at a URL whose app sleeps: all at once, one line for each client and kind of request.
//   node clients.mjs BASE-URL   prints CLIENT<TAB>VERSION<TAB>KIND<TAB>WHAT HAPPENED
import { createRequire } from 'node:module';
import http from 'node:http';
import axios from 'axios';
import got from 'got';
import WebSocket from 'ws';

const base = process.argv[2];
const body = '0123456789';
const patience = 100_000;
const require = createRequire(import.meta.url);
const version = name => JSON.parse(require('node:fs').readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version;

// The app's own answer, with how much of the body it got.
const app = (status, text) => {
  const said = Object.fromEntries(text.split(/\s+/).filter(pair => pair.includes('=')).map(pair => pair.split('=')));
  return said.pod ? `${status}, ${said.method} of ${said.bytes} bytes` : `${status}, not the app`;
};
const attempt = async (client, version, kind, act) => {
  let happened;
  try { happened = await act(); } catch (error) { happened = error.response?.statusCode ?? error.response?.status ?? `${error.name}: ${error.message}`; }
  console.log([client, version, kind, happened].join('\t'));
};
const stream = () => new ReadableStream({ start(all) { all.enqueue(new TextEncoder().encode(body)); all.close(); } });
const byFetch = async options => { const answer = await fetch(`${base}/fetch`, options); return app(answer.status, await answer.text()); };
const byAxios = async options => { const answer = await axios({ url: `${base}/axios`, timeout: patience, ...options }); return app(answer.status, String(answer.data)); };
const byGot = async options => { const answer = await got(`${base}/got`, { timeout: { request: patience }, retry: { limit: 0 }, ...options }); return app(answer.statusCode, answer.body); };
const byHttp = () => new Promise((resolve, reject) => {
  http.get(`${base}/http`, answer => { let text = ''; answer.on('data', part => text += part); answer.on('end', () => resolve(app(answer.statusCode, text))); }).on('error', reject);
});
const byWs = options => new Promise((resolve, reject) => {
  const socket = new WebSocket(`${base.replace('http://', 'ws://')}/ws`, options);
  socket.on('open', () => socket.send('hello'));
  socket.on('message', text => { resolve(String(text) === 'hello' ? '101, echo' : '101, no echo'); socket.close(); });
  socket.on('unexpected-response', (_, answer) => { resolve(String(answer.statusCode)); answer.destroy(); });
  socket.on('error', reject);
});

const node = process.versions.node;
await Promise.all([
  attempt('Node fetch', node, 'GET', () => byFetch({})),
  attempt('Node fetch', node, 'POST', () => byFetch({ method: 'POST', body })),
  attempt('Node fetch', node, 'stream', () => byFetch({ method: 'POST', body: stream(), duplex: 'half' })),
  attempt('Node http', node, 'GET', byHttp),
  attempt('axios', version('axios'), 'GET', () => byAxios({})),
  attempt('axios', version('axios'), 'POST', () => byAxios({ method: 'POST', data: body })),
  attempt('got', version('got'), 'GET', () => byGot({})),
  attempt('got', version('got'), 'POST', () => byGot({ method: 'POST', body, methodRewriting: false })),
  attempt('ws', version('ws'), 'WebSocket', () => byWs({})),
]);
process.exit(0);

// An authorization server for the interop tests: oidc-provider on loopback.
//
//   node server.mjs [--port=0] [--ttl=10] [--delay=0]
//
// ttl is the life of its tokens in seconds, delay what each token request takes
// longer in milliseconds.
//
// Prints one line of JSON on stdout when it listens, and ends when its standard
// input does, so that it never outlives the test that started it.
import { createServer } from 'node:http';
import { setTimeout } from 'node:timers/promises';
import { parseArgs } from 'node:util';

import { Provider } from 'oidc-provider';

// stdout is for the ready line alone; oidc-provider prints its notices there
console.info = console.error;

const { values } = parseArgs({
  options: {
    port: { type: 'string', default: '0' },
    ttl: { type: 'string', default: process.env.TOKEN_TTL ?? '10' },
    delay: { type: 'string', default: '0' },
  },
});

// What form-encoding changes: "+", "%", "/", "=", a blank, "&" and "!".
const oddSecret = 'p+a%s/w=d &!~:x';
// The same without "%": sent raw it still decodes, but to another secret.
const plusSecret = 'p+a/s=w+d';

const client = (id, secret, method) => ({
  client_id: id,
  client_secret: secret,
  token_endpoint_auth_method: method,
  grant_types: ['client_credentials'],
  redirect_uris: [],
  response_types: [],
  scope: 'read write',
});

const clients = [
  client('basic', 'secret-of-basic', 'client_secret_basic'),
  client('post', 'secret-of-post', 'client_secret_post'),
  client('basic-odd', oddSecret, 'client_secret_basic'),
  client('post-odd', oddSecret, 'client_secret_post'),
  client('basic-plus', plusSecret, 'client_secret_basic'),
  // the upstream, which introspects what it is given
  { ...client('upstream', 'secret-of-upstream', 'client_secret_basic'), grant_types: [] },
];

const stats = {
  granted: 0, // tokens issued
  refused: {}, // token requests refused, by error code
  methods: {}, // tokens issued, by the way the secret came
  max_in_flight: 0, // token requests at one time
};
const count = (counts, key) => { counts[key] = (counts[key] ?? 0) + 1; };

const server = createServer();
await new Promise((resolve, reject) => {
  server.once('error', reject);
  server.listen(Number(values.port), '127.0.0.1', resolve);
});
const { port } = server.address();
const issuer = `http://127.0.0.1:${port}`;

const provider = new Provider(issuer, {
  clients,
  // "admin" is known here and granted to nobody: asked for, it is invalid_scope
  scopes: ['read', 'write', 'admin'],
  ttl: { ClientCredentials: Number(values.ttl) },
  features: {
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: (ctx, asking) => asking.clientId === 'upstream' },
    revocation: { enabled: true },
    devInteractions: { enabled: false },
  },
});

provider.on('grant.success', (ctx) => {
  stats.granted += 1;
  count(stats.methods, ctx.headers.authorization ? 'client_secret_basic' : 'client_secret_post');
});
provider.on('grant.error', (ctx, err) => count(stats.refused, err.error));
provider.on('server_error', (ctx, err) => console.error(err));

let inFlight = 0;
provider.use(async (ctx, next) => {
  if (ctx.path !== '/token') return next();
  inFlight += 1;
  stats.max_in_flight = Math.max(stats.max_in_flight, inFlight);
  try {
    await setTimeout(Number(values.delay));
    return await next();
  } finally {
    inFlight -= 1;
  }
});

const callback = provider.callback();
server.on('request', (req, res) => {
  if (req.url === '/stats') {
    res.setHeader('Content-Type', 'application/json');
    res.end(JSON.stringify(stats));
    return;
  }
  callback(req, res);
});

process.stdin.resume().on('end', () => process.exit(0));
console.log(JSON.stringify({ issuer, port }));

// An authorization server for the interop tests: oidc-provider on loopback.
//
//   node server.mjs [--port=0] [--mtls-port=0] [--ttl=10] [--refresh-ttl=86400]
//     [--delay=0] [--state=FILE] [--keys-dir=FOLDER]
//     [--tls-cert=FILE --tls-key=FILE --tls-ca=FILE --tls-self-signed=FILE]
//
// ttl is the life of its access tokens in seconds, refresh-ttl that of its
// refresh tokens, delay what each token request takes longer in milliseconds.
// With a state file, it goes on where it was when it was killed.
//
// keys-dir is a folder for the private keys of the clients that sign, which are
// there from then on. With the four TLS files, the server speaks HTTPS, and on
// a second port it asks for a client certificate too (RFC 8705 section 5):
// tls-ca signs those of the clients that it knows by name, tls-self-signed
// holds those that a client signed itself.
//
// Nobody is asked at /auth: it redirects until the redirect_uri has a code, for
// which it wants its cookies back. controls.mjs has what is for the tests.
//
// Prints one line of JSON on stdout when it listens, and ends when its standard
// input does, so that it never outlives the test that started it.
import { readFileSync } from 'node:fs';
import { createServer as createHTTP } from 'node:http';
import { createServer as createHTTPS } from 'node:https';
import { randomBytes } from 'node:crypto';
import { parseArgs } from 'node:util';

import { Provider, errors } from 'oidc-provider';

import { clients, fapi, needingNonce, upstream } from './clients.mjs';
import { controls, findAccount, rotateRefreshToken } from './controls.mjs';
import { meter } from './meter.mjs';
import * as mtls from './mtls.mjs';
import { adapter } from './storage.mjs';

// stdout is for the ready line alone; oidc-provider prints its notices there
console.info = console.error;

const { values } = parseArgs({
  options: {
    port: { type: 'string', default: '0' },
    'mtls-port': { type: 'string', default: '0' },
    ttl: { type: 'string', default: process.env.TOKEN_TTL ?? '10' },
    'refresh-ttl': { type: 'string', default: '86400' },
    delay: { type: 'string', default: '0' },
    state: { type: 'string' },
    'keys-dir': { type: 'string' },
    'tls-cert': { type: 'string' },
    'tls-key': { type: 'string' },
    'tls-ca': { type: 'string' },
    'tls-self-signed': { type: 'string' },
  },
});

const listen = (server, port) => new Promise((resolve, reject) => {
  server.once('error', reject);
  server.listen(port, '127.0.0.1', () => resolve(server.address().port));
});

const secure = Boolean(values['tls-cert']);
const tls = secure && {
  cert: readFileSync(values['tls-cert']),
  key: readFileSync(values['tls-key']),
  ca: readFileSync(values['tls-ca']),
};
const servers = secure
  ? [createHTTPS(tls), createHTTPS({ ...tls, requestCert: true, rejectUnauthorized: false })]
  : [createHTTP()];
const port = await listen(servers[0], Number(values.port));
const mtlsPort = secure ? await listen(servers[1], Number(values['mtls-port'])) : 0;
const issuer = `${secure ? 'https' : 'http'}://127.0.0.1:${port}`;

// Tokens for the first are JWTs, which a resource server checks by itself.
const resources = {
  'https://jwt.example.com/api': { accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } } },
  'https://opaque.example.com/api': { accessTokenFormat: 'opaque' },
};

const ttl = Number(values.ttl);
const long = Number(values['refresh-ttl']);
const provider = new Provider(issuer, {
  adapter: adapter(values.state),
  clients: clients(values['keys-dir'], secure && readFileSync(values['tls-self-signed'], 'utf8')),
  clientAuthMethods: [
    'client_secret_basic', 'client_secret_post', 'client_secret_jwt', 'private_key_jwt', 'none',
    ...(secure ? ['tls_client_auth', 'self_signed_tls_client_auth'] : []),
  ],
  cookies: { keys: ['interop'] },
  discovery: secure ? { mtls_endpoint_aliases: mtls.aliases(`https://127.0.0.1:${mtlsPort}`) } : {},
  enabledJWA: {
    clientAuthSigningAlgValues: [
      'HS256', 'HS384', 'HS512', 'RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519',
    ],
    dPoPSigningAlgValues: ['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519'],
  },
  findAccount,
  rotateRefreshToken,
  // "admin" is known here and granted to nobody: asked for, it is invalid_scope
  scopes: ['openid', 'offline_access', 'read', 'write', 'admin'],
  ttl: {
    AccessToken: ttl,
    ClientCredentials: ttl,
    RefreshToken: long,
    Grant: long,
    Session: long,
    Interaction: 600,
    AuthorizationCode: 60,
    DeviceCode: 600,
    IdToken: ttl,
  },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    deviceFlow: { enabled: true },
    dPoP: {
      enabled: true,
      nonceSecret: randomBytes(32),
      // at /me the client is not known yet when the proof is looked at
      requireNonce: (ctx) => ctx.oidc.route === 'userinfo' || needingNonce.includes(ctx.oidc.client.clientId),
    },
    fapi: { enabled: true, profile: (ctx, client) => (client?.clientId === fapi ? '2.0' : undefined) },
    introspection: { enabled: true, allowedPolicy: (ctx, asking) => asking.clientId === upstream },
    mTLS: secure ? mtls.feature : { enabled: false },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (ctx, resource) => {
        if (!Object.hasOwn(resources, resource)) throw new errors.InvalidTarget();
        return { scope: 'read write', audience: resource, ...resources[resource] };
      },
      useGrantedResource: () => true,
    },
    revocation: { enabled: true },
  },
});
provider.on('server_error', (ctx, err) => console.error(err));

const control = controls(provider, meter(provider, Number(values.delay)));
const callback = provider.callback();
for (const server of servers) {
  server.on('request', (req, res) => control(req, res) || callback(req, res));
}

process.stdin.resume().on('end', () => process.exit(0));
console.log(JSON.stringify({ issuer, port, mtls_port: mtlsPort }));

// The clients of the server. Unless it says otherwise here each may use all
// grants, with any port of a loopback address for its redirect URI.
import { publicKey } from './keys.mjs';
import { keysOf } from './mtls.mjs';

// What form-encoding changes: "+", "%", "/", "=", a blank, "&" and "!".
const oddSecret = 'p+a%s/w=d &!~:x';
// The same without "%": sent raw it still decodes, but to another secret.
const plusSecret = 'p+a/s=w+d';
// HS512 wants 64 bytes at least (RFC 7518 section 3.2).
const longSecret = 'secret-of-secret-jwt-which-is-as-long-as-the-longest-of-its-hashes';

const client = (id, method, more) => ({
  client_id: id,
  token_endpoint_auth_method: method,
  application_type: 'native',
  grant_types: [
    'client_credentials',
    'authorization_code',
    'refresh_token',
    'urn:ietf:params:oauth:grant-type:device_code',
  ],
  response_types: ['code'],
  redirect_uris: ['http://127.0.0.1/callback', 'http://[::1]/callback', 'http://localhost/callback'],
  scope: 'openid offline_access read write',
  ...more,
});

const secret = (id, method, client_secret, more) => client(id, method, { client_secret, ...more });

const signing = (folder, id, alg) => client(id, 'private_key_jwt', {
  token_endpoint_auth_signing_alg: alg,
  jwks: { keys: [publicKey(folder, id, alg)] },
});

const bound = { tls_client_certificate_bound_access_tokens: true };
const dpop = { dpop_bound_access_tokens: true };

// Its refresh token stays the same.
export const notRotating = 'fixed';
// Their proofs need a nonce of the server's.
export const needingNonce = ['dpop-nonce', 'dpop-public'];
// Its assertions may be meant for the issuer alone, as FAPI 2.0 has it.
export const fapi = 'key-fapi';
// It introspects the tokens of all others, and gets none.
export const upstream = 'upstream';

const withSecrets = [
  secret('basic', 'client_secret_basic', 'secret-of-basic'),
  secret('post', 'client_secret_post', 'secret-of-post'),
  secret('basic-odd', 'client_secret_basic', oddSecret),
  secret('post-odd', 'client_secret_post', oddSecret),
  secret('basic-plus', 'client_secret_basic', plusSecret),
  secret('secret-jwt', 'client_secret_jwt', longSecret),
  secret(notRotating, 'client_secret_basic', 'secret-of-fixed'),
  secret('dpop', 'client_secret_basic', 'secret-of-dpop', dpop),
  secret('dpop-nonce', 'client_secret_basic', 'secret-of-dpop-nonce', dpop),
  secret(upstream, 'client_secret_basic', 'secret-of-upstream', {
    grant_types: [], response_types: [], redirect_uris: [],
  }),
];

// Client credentials need a confidential client (RFC 6749 section 4.4).
const open = {
  grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
};
const withoutProof = [
  client('public', 'none', open),
  client('dpop-public', 'none', { ...open, ...dpop }),
];

const withKeys = (folder) => [
  signing(folder, 'key-rs256', 'RS256'),
  signing(folder, 'key-ps256', 'PS256'),
  signing(folder, 'key-es256', 'ES256'),
  signing(folder, 'key-eddsa', 'EdDSA'),
  signing(folder, fapi, 'ES256'),
];

const withCertificates = (selfSigned) => [
  client('tls-dn', 'tls_client_auth', { tls_client_auth_subject_dn: 'CN=tls-dn,O=Interop', ...bound }),
  client('tls-san', 'tls_client_auth', { tls_client_auth_san_dns: 'tls-san.example.com', ...bound }),
  // knows its client by the certificate, and gives it tokens that anybody can use
  client('tls-unbound', 'tls_client_auth', { tls_client_auth_subject_dn: 'CN=tls-unbound,O=Interop' }),
  client('tls-self-signed', 'self_signed_tls_client_auth', { jwks: { keys: keysOf(selfSigned) }, ...bound }),
  // any certificate will do, for it is the token that is bound
  secret('basic-bound', 'client_secret_basic', 'secret-of-basic-bound', bound),
  client('public-bound', 'none', { ...open, ...bound }),
];

// clients are those for which there is what they need: a folder for keys, the
// PEM text of self-signed certificates.
export const clients = (keysFolder, selfSigned) => [
  ...withSecrets,
  ...withoutProof,
  ...(keysFolder ? withKeys(keysFolder) : []),
  ...(selfSigned ? withCertificates(selfSigned) : []),
];

// Mutual TLS (RFC 8705): what oidc-provider has to be told about a client's
// certificate, and the keys of those that no authority signed.
import { X509Certificate } from 'node:crypto';

const certificate = (ctx) => ctx.req.socket.getPeerX509Certificate?.();

// distinguishedName in the order of RFC 4514, for names that need no escapes.
const distinguishedName = (cert) => cert.subject.split('\n').reverse().join(',');

const alternativeName = (cert, kind, name) => (
  (cert.subjectAltName ?? '').split(', ').includes(`${kind}:${name}`)
);

const matches = {
  tls_client_auth_subject_dn: (cert, name) => distinguishedName(cert) === name,
  tls_client_auth_san_dns: (cert, name) => alternativeName(cert, 'DNS', name),
  tls_client_auth_san_uri: (cert, name) => alternativeName(cert, 'URI', name),
  tls_client_auth_san_ip: (cert, name) => alternativeName(cert, 'IP Address', name),
  tls_client_auth_san_email: (cert, name) => alternativeName(cert, 'email', name),
};

// feature is oidc-provider's option features.mTLS.
export const feature = {
  enabled: true,
  certificateBoundAccessTokens: true,
  selfSignedTlsClientAuth: true,
  tlsClientAuth: true,
  getCertificate: certificate,
  certificateAuthorized: (ctx) => ctx.req.socket.authorized,
  certificateSubjectMatches: (ctx, property, name) => matches[property](certificate(ctx), name),
};

// aliases are the endpoints that ask for a certificate (RFC 8705 section 5).
export const aliases = (base) => ({
  token_endpoint: `${base}/token`,
  introspection_endpoint: `${base}/token/introspection`,
  revocation_endpoint: `${base}/token/revocation`,
  device_authorization_endpoint: `${base}/device/auth`,
  pushed_authorization_request_endpoint: `${base}/request`,
  userinfo_endpoint: `${base}/me`,
});

// keysOf are the public keys of all certificates in a PEM file, each with its
// certificate, which is what a self-signed one is known by.
export const keysOf = (pem) => (
  pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g).map((text) => {
    const cert = new X509Certificate(text);
    return { ...cert.publicKey.export({ format: 'jwk' }), x5c: [cert.raw.toString('base64')] };
  })
);

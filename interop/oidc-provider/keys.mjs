// The keys of the clients that sign their assertions.
import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const types = {
  RS256: ['rsa', { modulusLength: 2048 }],
  PS256: ['rsa', { modulusLength: 2048 }],
  ES256: ['ec', { namedCurve: 'P-256' }],
  EdDSA: ['ed25519'],
};

// publicKey is the client's public key as a JWK. The private one is in the
// folder, as <id>.pem (PKCS #8) and <id>.jwk; where it is there already it
// stays, so that a server that is started again knows its clients.
export const publicKey = (folder, id, alg) => {
  const file = join(folder, `${id}.pem`);
  const named = { kid: id, alg, use: 'sig' };
  if (!existsSync(file)) {
    // as text, and read again: Node 20 may lock itself up for good where it
    // exports a key while what has just made it is collected
    const [type, options] = types[alg];
    const { privateKey } = generateKeyPairSync(type, {
      ...options,
      publicKeyEncoding: { type: 'spki', format: 'pem' },
      privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    });
    const jwk = { ...createPrivateKey(privateKey).export({ format: 'jwk' }), ...named };
    writeFileSync(join(folder, `${id}.jwk`), JSON.stringify(jwk), { mode: 0o600 });
    writeFileSync(file, privateKey, { mode: 0o600 });
  }
  const key = createPublicKey(createPrivateKey(readFileSync(file)));
  return { ...key.export({ format: 'jwk' }), ...named };
};

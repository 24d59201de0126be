// Stands before the token endpoint: it counts, delays and loses.
import { hash } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';

const add = (counts, key) => { counts[key] = (counts[key] ?? 0) + 1; };

// SHA-256 in hex tells tokens apart without showing them.
const fingerprint = (token) => (token ? hash('sha256', token) : '');

// basic and post are taken from a client whichever of them it is registered
// for: what counts is how the secret came.
const method = (ctx) => {
  const registered = ctx.oidc.client.clientAuthMethod;
  if (!['client_secret_basic', 'client_secret_post'].includes(registered)) return registered;
  return ctx.headers.authorization ? 'client_secret_basic' : 'client_secret_post';
};

// cut is a token request that was processed and whose answer nobody got.
const cut = (ctx) => ({
  grant_type: ctx.oidc?.params?.grant_type ?? '',
  client_id: ctx.oidc?.client?.clientId ?? '',
  spent: fingerprint(ctx.oidc?.params?.refresh_token),
  next: fingerprint(ctx.body?.refresh_token),
  error: ctx.body?.error ?? '',
});

// meter is put before the provider. Its stats are what happened at the token
// endpoint since the start; lose is how many answers are still to be lost.
export const meter = (provider, delay) => {
  const stats = {
    granted: 0, // token requests that got a token
    refused: {}, // those that did not, by error code
    methods: {}, // granted, by client authentication method
    grants: {}, // granted, by grant_type
    max_in_flight: 0, // token requests at one time
    rotations: 0, // refresh tokens that were exchanged for another
    chains: 0, // started by /initial
    chains_revoked: 0, // ended because a spent refresh token or code came again
    lost: [], // answers that /fault took away
    gone: [], // answers for clients that were gone when they were due
  };
  const counted = { stats, lose: 0 };

  provider.on('grant.success', (ctx) => {
    stats.granted += 1;
    add(stats.methods, method(ctx));
    add(stats.grants, ctx.oidc.params.grant_type);
    if (ctx.oidc.entities.RotatedRefreshToken) stats.rotations += 1;
  });
  provider.on('grant.error', (ctx, err) => add(stats.refused, err.error));
  provider.on('grant.revoked', (ctx) => {
    if (ctx.oidc.route === 'token') stats.chains_revoked += 1;
  });

  let inFlight = 0;
  provider.use(async (ctx, next) => {
    if (ctx.path !== '/token') return next();
    inFlight += 1;
    stats.max_in_flight = Math.max(stats.max_in_flight, inFlight);
    const losing = counted.lose > 0;
    if (losing) counted.lose -= 1;
    try {
      await setTimeout(delay);
      await next();
    } finally {
      inFlight -= 1;
    }
    if (losing) {
      stats.lost.push(cut(ctx));
      ctx.respond = false;
      ctx.req.socket.destroy();
    } else if (ctx.req.socket.destroyed) {
      stats.gone.push(cut(ctx));
    }
    return undefined;
  });
  return counted;
};

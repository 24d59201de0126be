// What the tests do to the server, and what it does in place of a person.
import { text } from 'node:stream/consumers';

import { notRotating } from './clients.mjs';

// the one person there is
const person = 'alice';
// whoever logs in with this as login_hint is turned away
const nobody = 'nobody';

const now = () => Math.floor(Date.now() / 1000);

// findAccount is oidc-provider's option of that name.
export const findAccount = (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) });

// rotateRefreshToken is oidc-provider's option of that name.
export const rotateRefreshToken = (ctx) => ctx.oidc.client.clientId !== notRotating;

const list = (value) => [value ?? []].flat();

// consent grants a client all that it asks for.
const consent = (provider, clientId, { scope = '', resource }) => {
  const grant = new provider.Grant({ accountId: person, clientId });
  if (scope) grant.addOIDCScope(scope);
  list(resource).forEach((one) => grant.addResourceScope(one, scope));
  return grant.save();
};

// interact finishes login and consent at once: /auth redirects until the
// redirect_uri has a code.
const interact = async (provider, req, res) => {
  const { params } = await provider.interactionDetails(req, res);
  if (params.login_hint === nobody) {
    return provider.interactionFinished(req, res, {
      error: 'access_denied', error_description: 'nobody may not',
    });
  }
  return provider.interactionFinished(req, res, {
    login: { accountId: person },
    consent: { grantId: await consent(provider, params.client_id, params) },
  });
};

// initial begins a chain of refresh tokens for a client, as a login does that
// asked for the scope (and the resource). jkt is the thumbprint of the key that
// the refresh token of a public client is bound to (RFC 9449 section 5).
const initial = async (provider, { client_id, scope = 'offline_access read write', resource, jkt }) => {
  const client = await provider.Client.find(client_id);
  if (!client) throw new Error(`no client ${client_id}`);
  const token = new provider.RefreshToken({
    accountId: person,
    authTime: now(),
    client,
    grantId: await consent(provider, client_id, { scope, resource }),
    gty: 'authorization_code',
    jkt,
    resource,
    rotations: 0,
    scope,
  });
  return { refresh_token: await token.save() };
};

// confirm answers a device's request (RFC 8628 section 3.3) for the person, who
// says no where deny is there.
const confirm = async (provider, { user_code = '', deny }) => {
  const code = await provider.DeviceCode.findByUserCode(user_code.toUpperCase().replace(/\W/g, ''));
  if (!code) throw new Error(`no device shows ${user_code}`);
  if (deny) {
    Object.assign(code, { error: 'access_denied', errorDescription: 'the person said no' });
  } else {
    const { scope, resource } = code.params;
    Object.assign(code, {
      accountId: person,
      authTime: now(),
      grantId: await consent(provider, code.clientId, code.params),
      resource,
      scope,
    });
  }
  await code.save();
  return {};
};

// controls handle the requests that are none of the provider's:
//
//   GET  /stats             what happened at the token endpoint
//   POST /fault             {"lost": n}: process the next n token requests and
//                           hang up on each, n in place of what is left of an
//                           earlier n
//   POST /initial           client_id=…[&scope=…][&resource=…][&jkt=…]: answers
//                           {"refresh_token": …}
//   POST /confirm           user_code=…[&deny=1]
//   GET  /interaction/<id>  where /auth sends a browser
export const controls = (provider, metered) => {
  const handlers = {
    '/stats': () => metered.stats,
    '/fault': (body) => {
      metered.lose = JSON.parse(body).lost;
      return undefined;
    },
    '/initial': async (body) => {
      const begun = await initial(provider, Object.fromEntries(new URLSearchParams(body)));
      metered.stats.chains += 1;
      return begun;
    },
    '/confirm': (body) => confirm(provider, Object.fromEntries(new URLSearchParams(body))),
  };

  const answer = async (req, res, handler) => {
    const body = await handler(await text(req));
    if (body === undefined) {
      res.statusCode = 204;
      res.end();
      return;
    }
    res.setHeader('Content-Type', 'application/json');
    res.end(JSON.stringify(body));
  };

  // true where the request was one of these
  return (req, res) => {
    const handler = handlers[req.url];
    const interaction = req.url.startsWith('/interaction/');
    if (!handler && !interaction) return false;
    (interaction ? interact(provider, req, res) : answer(req, res, handler)).catch((err) => {
      console.error(err);
      res.statusCode = 400;
      res.end(err.message);
    });
    return true;
  };
};

/** The token of a studio that faces a network: it comes behind # in the address, which no server sees, and is traded
for a cookie that scripts cannot read. */

import { api } from "../api";

const KEPT = "flaxgen.token";

export async function begin(): Promise<void> {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem(KEPT, given);
    history.replaceState(null, "", location.pathname);
  }
  const token = sessionStorage.getItem(KEPT);
  if (token) await api.session(token).catch(() => sessionStorage.removeItem(KEPT));
}

/** Raises what the server says of a wrong token. */
export async function enter(token: string): Promise<void> {
  await api.session(token);
  sessionStorage.setItem(KEPT, token);
}

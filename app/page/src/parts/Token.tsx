/** Asks for the token of a studio that faces a network. */

import { useState } from "preact/hooks";

import { connect } from "../state/live";
import { enter } from "../state/session";
import { close } from "../state/ui";
import { Modal } from "./bits";

export function Token() {
  const [error, setError] = useState("");
  const send = async (event: SubmitEvent) => {
    event.preventDefault();
    const token = new FormData(event.currentTarget as HTMLFormElement).get("token");
    try {
      await enter(String(token ?? ""));
      close();
      connect();
    } catch (refused) {
      setError(refused instanceof Error ? refused.message : String(refused));
    }
  };
  return (
    <Modal title="This studio asks for a token" size="small">
      <form class="token" onSubmit={(event) => void send(event)}>
        <p class="hint">It is part of the address that the studio printed when it started.</p>
        <label class="label" for="token">Token</label>
        <input id="token" name="token" class="input" type="password" autocomplete="off" aria-invalid={Boolean(error)} />
        {error && <p class="error" role="alert">{error}</p>}
        <button type="submit" class="button primary">Enter</button>
      </form>
    </Modal>
  );
}

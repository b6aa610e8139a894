import { type FormEvent, type ReactNode, useEffect, useState } from "react";

/** Asks for the token; it stays in this tab alone. */
export function LoginScreen({ notice, onToken }: { readonly notice: string; readonly onToken: (token: string) => void }): ReactNode {
  const [token, setToken] = useState("");
  useEffect(() => {
    document.title = "Sign in · SWE Fleet";
  }, []);
  const send = (event: FormEvent): void => {
    event.preventDefault();
    if (token.trim()) onToken(token.trim());
  };
  return (
    <main className="login">
      <form className="card" onSubmit={send}>
        <h1>SWE Fleet</h1>
        <p>Paste your access token. It is kept in this browser tab only, until you close it or sign out.</p>
        {notice ? (
          <p className="notice" role="status">
            {notice}
          </p>
        ) : null}
        <label htmlFor="token">Access token</label>
        <input
          id="token"
          type="password"
          autoComplete="off"
          autoCapitalize="off"
          spellCheck={false}
          autoFocus
          required
          value={token}
          onChange={(event) => setToken(event.target.value)}
        />
        <button type="submit" className="primary" disabled={!token.trim()}>
          Sign in
        </button>
        <p className="hint">
          On a local fleet, <code>fleet up</code> names the file with your token.
        </p>
      </form>
    </main>
  );
}

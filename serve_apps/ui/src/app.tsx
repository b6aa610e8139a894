import { type ReactNode, useEffect, useMemo, useRef, useState } from "react";
import { Api } from "./api/client.ts";
import { ApiContext } from "./hooks.ts";
import { type Route, parseRoute } from "./model/route.ts";
import { dropToken, keepToken, takeToken } from "./model/session.ts";
import { Shell } from "./parts/shell.tsx";
import { AgentsScreen } from "./screens/agents.tsx";
import { AuditScreen } from "./screens/audit.tsx";
import { BoardScreen } from "./screens/board.tsx";
import { ContextScreen } from "./screens/context_stats.tsx";
import { EnvironmentsScreen } from "./screens/environments.tsx";
import { GateScreen } from "./screens/gate.tsx";
import { GatesScreen } from "./screens/gates.tsx";
import { LoginScreen } from "./screens/login.tsx";
import { NewStoryScreen } from "./screens/new_story.tsx";
import { ProjectScreen } from "./screens/project.tsx";
import { StoryScreen } from "./screens/story.tsx";
import { UsageScreen } from "./screens/usage.tsx";

function readToken(): string | null {
  return takeToken({
    hash: location.hash,
    store: sessionStorage,
    replace: (hash) => history.replaceState(null, "", `${location.pathname}${hash}`),
  });
}

/** The desk: nothing is asked of the fleet before there is a token. */
export function App(): ReactNode {
  const [token, setToken] = useState(readToken);
  const [notice, setNotice] = useState("");
  const [route, setRoute] = useState(() => parseRoute(location.hash));
  useEffect(() => {
    const changed = (): void => {
      // A link with a token may be opened in a tab that is here already.
      const found = readToken();
      setToken((before) => found ?? before);
      setRoute(parseRoute(location.hash));
    };
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  const api = useMemo(() => {
    if (token === null) return null;
    return new Api(token, () => {
      dropToken(sessionStorage);
      setToken(null);
      setNotice("This token is not, or no longer, valid. Paste another one.");
    });
  }, [token]);
  if (!api)
    return (
      <LoginScreen
        notice={notice}
        onToken={(given) => {
          keepToken(sessionStorage, given);
          setNotice("");
          setToken(given);
        }}
      />
    );
  const signOut = (): void => {
    dropToken(sessionStorage);
    setNotice("You are signed out.");
    setToken(null);
  };
  return (
    <ApiContext value={api}>
      <Shell route={route} onSignOut={signOut}>
        <Main route={route} />
      </Shell>
    </ApiContext>
  );
}

function Main({ route }: { readonly route: Route }): ReactNode {
  const main = useRef<HTMLElement>(null);
  const place = route.name === "story" ? `story/${route.story}/${route.item}` : JSON.stringify(route);
  const isFirst = useRef(true);
  useEffect(() => {
    scrollTo(0, 0);
    // Who reads with a screen reader hears the new page; at the start the browser itself tells of it.
    if (!isFirst.current) main.current?.focus();
    isFirst.current = false;
  }, [place]);
  return (
    <main id="main" ref={main} tabIndex={-1}>
      <Screen route={route} />
    </main>
  );
}

function Screen({ route }: { readonly route: Route }): ReactNode {
  switch (route.name) {
    case "board":
      return <BoardScreen />;
    case "new":
      return <NewStoryScreen />;
    case "gates":
      return <GatesScreen />;
    case "gate":
      return <GateScreen key={`${route.story} ${route.approval}`} story={route.story} approval={route.approval} />;
    case "project":
      return <ProjectScreen />;
    case "context":
      return <ContextScreen />;
    case "usage":
      return <UsageScreen />;
    case "audit":
      return <AuditScreen />;
    case "agents":
      return <AgentsScreen />;
    case "environments":
      return <EnvironmentsScreen />;
    case "story":
      return <StoryScreen key={route.story} story={route.story} tab={route.tab} item={route.item} />;
  }
}

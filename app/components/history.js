// One entry in the browser's history for each page visited: what a page writes into its own address replaces that entry,
// so Back leaves the page, and the page before opens with the address it had last.

export default function () {
  if (window.eigenscopeHistory) return;
  window.eigenscopeHistory = true;
  const push = window.history.pushState.bind(window.history);
  window.history.pushState = (state, unused, url) => {
    const next = new URL(url ?? "", window.location.href);
    if (next.pathname === window.location.pathname) window.history.replaceState(state, unused, url);
    else push(state, unused, url);
  };
}

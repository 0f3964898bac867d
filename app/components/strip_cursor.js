// Tells the strip which token is selected, so that a selection does not send the whole text again.

export default function ({ data }) {
  (window.eigenscopeSelected ??= {})[data.strip] = data.selected;
  window.dispatchEvent(new CustomEvent("eigenscope:selected", { detail: data }));
}

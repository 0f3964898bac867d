// Tells the strip what is selected, so that a selection does not send the whole text again.

export default function ({ data }) {
  (window.eigenscopeSelected ??= {})[data.strip] = data;
  window.dispatchEvent(new CustomEvent("eigenscope:selected", { detail: data }));
}

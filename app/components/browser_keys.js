// Keeps the keys of the sessions this browser may change in a cookie that only this site's own pages send. Keys that another
// tab put there stay.

export default function ({ data }) {
  const name = `${data.name}=`;
  const held = document.cookie.split("; ").find((one) => one.startsWith(name))?.slice(name.length) ?? "";
  const others = held.split(".").filter((key) => /^[0-9a-f]{32}$/.test(key) && !data.keys.includes(key));
  const kept = [...others, ...data.keys].slice(-data.most);
  document.cookie = `${name}${kept.join(".")}; path=/; max-age=31536000; samesite=strict`;
}

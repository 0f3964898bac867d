// Keeps the keys of the sessions this browser may change in a cookie that only this site's own pages send.

export default function ({ data }) {
  document.cookie = `${data.name}=${data.value}; path=/; max-age=31536000; samesite=strict`;
}

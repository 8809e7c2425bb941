// What the page shows, kept after the # of its address, so that a link opens the same moment.

/** Return what the address says. */
export function readAddress() {
  return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
}

/** Change some of it; null takes a key away. The history gets no new entry. */
export function writeAddress(changes) {
  const parameters = new URLSearchParams(location.hash.slice(1));
  for (const [key, value] of Object.entries(changes)) {
    if (value === null) parameters.delete(key);
    else parameters.set(key, value);
  }
  const hash = parameters.toString();
  if (hash !== location.hash.slice(1)) {
    history.replaceState(null, "", `${location.pathname}${location.search}${hash ? `#${hash}` : ""}`);
  }
}

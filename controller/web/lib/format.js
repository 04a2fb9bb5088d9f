// Numbers, times, names and text offsets as the pages show them.

const integers = new Intl.NumberFormat('en');

const absent = (value) => value === null || value === undefined || Number.isNaN(value);
export const kAbsent = '–';

export function integer(value) {
  return absent(value) ? kAbsent : integers.format(value);
}

export function real(value, digits = 2) {
  return absent(value) ? kAbsent : Number(value).toFixed(digits).replace('-', '−');
}

// With its sign: for differences, where + and - are the point.
export function signed(value, digits = 2) {
  if (absent(value)) return kAbsent;
  const text = real(value, digits);
  return Number(value) > 0 ? `+${text}` : text;
}

export function percent(value, digits = 0) {
  return absent(value) ? kAbsent : `${real(100 * value, digits)} %`;
}

export function bytes(value) {
  if (absent(value)) return kAbsent;
  let rest = value, unit = 0;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  while (rest >= 1024 && unit + 1 < units.length) {
    rest /= 1024;
    ++unit;
  }
  return `${unit === 0 ? rest : rest.toFixed(rest < 10 ? 1 : 0)} ${units[unit]}`;
}

export function micros(value) {
  if (absent(value)) return kAbsent;
  if (value < 1000) return `${Math.round(value)} µs`;
  if (value < 1e6) return `${(value / 1000).toFixed(value < 1e4 ? 1 : 0)} ms`;
  return `${(value / 1e6).toFixed(1)} s`;
}

export function seconds(value) {
  if (absent(value)) return kAbsent;
  if (value < 1) return `${Math.round(1000 * value)} ms`;
  if (value < 60) return `${value.toFixed(1)} s`;
  return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
}

// Local time, as it sorts.
export function time(unixMs) {
  if (absent(unixMs) || unixMs <= 0) return kAbsent;
  const t = new Date(unixMs);
  const two = (n) => String(n).padStart(2, '0');
  return `${t.getFullYear()}-${two(t.getMonth() + 1)}-${two(t.getDate())} ` +
      `${two(t.getHours())}:${two(t.getMinutes())}`;
}

export function plural(count, one, many = `${one}s`) {
  return `${integer(count)} ${count === 1 ? one : many}`;
}

// "NS/ID@7", "NS/ID", "ID@7" or "ID"; "base" has neither.
export function parseMemory(name) {
  if (name === 'base') return {ns: '', id: 'base', version: null};
  const at = name.lastIndexOf('@');
  const plain = at < 0 ? name : name.slice(0, at);
  const slash = plain.indexOf('/');
  return {
    ns: slash < 0 ? 'default' : plain.slice(0, slash),
    id: plain.slice(slash + 1),
    version: at < 0 ? null : Number(name.slice(at + 1)),
  };
}

export function plainName(name) {
  const {ns, id} = parseMemory(name);
  return ns === '' ? id : `${ns}/${id}`;
}

// UTF-8 byte offsets as offsets of a JavaScript string (UTF-16 units). One that lies inside a
// character is its beginning; one behind the end is the end. Any order; the same order comes back.
export function utf16Offsets(text, byteOffsets) {
  const order = byteOffsets.map((_, i) => i).sort((a, b) => byteOffsets[a] - byteOffsets[b]);
  const out = new Array(byteOffsets.length);
  let unit = 0, byte = 0;
  for (const i of order) {
    while (unit < text.length) {
      const code = text.codePointAt(unit);
      const size = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
      if (byte + size > byteOffsets[i]) break;
      byte += size;
      unit += code < 0x10000 ? 1 : 2;
    }
    out[i] = unit;
  }
  return out;
}

// Not in the middle of a surrogate pair.
export function characterBoundary(text, unit) {
  if (unit <= 0 || unit >= text.length) return Math.max(0, Math.min(unit, text.length));
  const code = text.charCodeAt(unit);
  return code >= 0xdc00 && code <= 0xdfff ? unit - 1 : unit;
}

export function oneLine(text, limit = 120) {
  const flat = text.slice(0, 2 * limit).replace(/\s+/g, ' ').trim();
  return flat.length > limit || text.length > 2 * limit ? `${flat.slice(0, limit)}…` : flat;
}

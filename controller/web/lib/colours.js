// A memory's colour and underline, by hash of its name, the same on every page; base is grey. The
// colours are classes of style.css (m0..m11, u0..u3): the security policy forbids inline styles. The
// underline and the name stand beside every colour, so that none needs to be told from another.
import {h} from './dom.js';
import {parseMemory, plainName} from './format.js';

const kColours = 12;
const kUnderlines = 4;

// FNV-1a over UTF-16 units, then mixed: names that differ in their last digit fall far apart.
function hash(text) {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; ++i) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35);
  return (value ^ (value >>> 16)) >>> 0;
}

export function memoryClasses(name) {
  if (name === 'base') return 'memory base';
  const value = hash(plainName(name));
  return `memory m${value % kColours} u${(value >>> 8) % kUnderlines}`;
}

export function memoryHref(name) {
  const {ns, id} = parseMemory(name);
  return ns === '' ? null : `#/memory/${encodeURIComponent(ns)}/${encodeURIComponent(id)}`;
}

// Swatch and name; a link where there is a page for it.
export function memoryTag(name, {link = true} = {}) {
  const {ns, id, version} = parseMemory(name);
  const href = link ? memoryHref(name) : null;
  return h(href ? 'a' : 'span', {class: `tag ${memoryClasses(name)}`, href},
      h('span', {class: 'swatch', 'aria-hidden': 'true'}),
      h('bdi', {}, ns === '' || ns === 'default' ? id : `${ns}/${id}`),
      version === null ? null : h('span', {class: 'dim'}, `@${version}`));
}

// What a colour of style.css is right now, for a canvas: "rgb(...)". `classes` names who has it.
export function computedColour(variable, classes = '') {
  const probe = h('span', {class: `unseen ${classes}`});
  document.body.append(probe);
  probe.style.setProperty('color', `var(${variable})`);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

const known = new Map();  // classes -> colour, until the theme changes
document.addEventListener('themechange', () => known.clear());
export function memoryColour(name) {
  const classes = memoryClasses(name);
  if (!known.has(classes)) known.set(classes, computedColour('--memory', classes));
  return known.get(classes);
}

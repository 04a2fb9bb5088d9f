// The frame: routes in the fragment, navigation, theme, token, connection and status.
import {ApiError, connection, get, isAbort, onTokenNeeded, setToken, takeTokenFromAddress, token}
    from './lib/api.js';
import {announce, h, repeated, replace} from './lib/dom.js';
import {plural} from './lib/format.js';
import {dialog, errorBox, field} from './lib/widgets.js';

// Path -> module. A page exports `title` and show(root, {path, query, signal, session}); it may
// return {refresh}, called when a lost connection is back.
const kPages = {
  bank: ['Bank', () => import('./pages/bank.js')],
  generate: ['Generate', () => import('./pages/generate.js')],
  traces: ['Traces', () => import('./pages/traces.js')],
  policy: ['Policy', () => import('./pages/policy.js')],
  jobs: ['Jobs', () => import('./pages/jobs.js')],
  memory: ['Bank', () => import('./pages/memory.js')],
  trace: ['Traces', () => import('./pages/trace.js')],
};
const kTabs = ['bank', 'generate', 'traces', 'policy', 'jobs'];
const kStatusMs = 5000;

const main = document.getElementById('main');
const banner = document.getElementById('banner');
const tokenButton = document.getElementById('token-button');
let current = {controller: new AbortController(), page: null, failed: false};
let session = null;

// --- routes ------------------------------------------------------------------------------------

function route() {
  const [path, search] = location.hash.replace(/^#\/?/, '').split('?');
  const parts = path.split('/').filter(Boolean).map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  const name = Object.hasOwn(kPages, parts[0]) ? parts[0] : 'bank';
  return {name, path: parts.slice(1), query: new URLSearchParams(search || '')};
}

function markTab(name) {
  for (const link of document.querySelectorAll('.tabs a')) {
    if (link.textContent === kPages[name][0]) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
}

async function show({focus = true} = {}) {
  current.controller.abort();
  const mine = {controller: new AbortController(), page: null, failed: false};
  current = mine;
  const {name, path, query} = route();
  const {signal} = mine.controller;
  markTab(name);
  const root = h('div', {class: `page page-${name}`});
  try {
    const [module, known] = await Promise.all(
        [kPages[name][1](), session ?? get(['session'], {}, {signal})]);
    if (signal.aborted) return;
    session = known;
    tokenButton.textContent = session.may_change ? 'Token' : 'Read only';
    document.title = `${module.title({path})} · memslot`;
    replace(main, root);
    main.scrollTop = 0;
    if (focus) main.focus({preventScroll: true});
    mine.page = await module.show(root, {path, query, signal, session});
    announce(document.title);
  } catch (error) {
    if (isAbort(error) || signal.aborted) return;
    mine.failed = true;
    replace(main, root);
    replace(root, errorBox(error, () => show()));
  }
}

// --- connection and status ---------------------------------------------------------------------

connection.addEventListener('down', ({detail}) => {
  banner.hidden = false;
  replace(banner, h('span', {}, `The controller does not answer. Next try in ${detail} s.`),
      h('button', {type: 'button', on: {click: () => connection.retry()}}, 'Try now'));
  showStatus('down', 'not connected');
});

connection.addEventListener('up', () => {
  banner.hidden = true;
  announce('The controller answers again.');
  if (current.failed) show({focus: false});
  else current.page?.refresh?.();
  readStatus().catch(() => {});
});

function showStatus(state, text, title = '') {
  const node = document.getElementById('status');
  node.dataset.state = state;
  node.title = title;
  if (node.textContent !== text) node.textContent = text;
}

async function readStatus() {
  const status = await get(['status'], {}, {quiet: true});
  const generators = status.generators || [];
  if (!generators.length) {
    showStatus('warn', 'no generator',
        'Texts can be neither learned nor generated until a memslot-generator connects.');
    return;
  }
  const models = [...new Set(generators.map((g) => g.model_name || 'model'))].join(', ');
  showStatus('up', `${plural(generators.length, 'generator')}`,
      `${models}; ${plural(status.memories, 'memory', 'memories')}`);
}

// --- token -------------------------------------------------------------------------------------

let asking = null;  // one field at a time, however many requests were refused
let declined = false;

function tokenDialog(reason) {
  const input = h('input', {type: 'password', autocomplete: 'off', spellcheck: 'false',
    id: 'token', 'data-first': true, value: token()});
  return dialog('Token', (close) => h('form', {on: {submit: (event) => {
    event.preventDefault();
    setToken(input.value);
    close(true);
  }}},
  reason ? h('p', {class: 'error-text', dir: 'auto'}, reason) : null,
  h('p', {}, 'Reading on this host needs no token; changes do, and everything does where tokens are ' +
      'configured. The controller names the file that holds the browser token when it starts ',
      h('span', {class: 'mono'}, '(token_file=PATH)'), '. It stays in this tab only.'),
  field('Token', input),
  h('div', {class: 'row end'},
      h('button', {type: 'button', on: {click: () => {
        setToken('');
        close(false);
      }}}, 'Forget'),
      h('button', {type: 'submit', class: 'primary'}, 'Use this token'))));
}

onTokenNeeded(async (error) => {
  if (declined && !navigator.userActivation?.isActive) return false;
  asking ??= tokenDialog(error instanceof ApiError ? error.message : '').finally(() => {
    asking = null;
  });
  const given = await asking;
  declined = !given;
  if (given) session = null;
  return Boolean(given);
});

tokenButton.addEventListener('click', async () => {
  if (await tokenDialog('') === undefined) return;
  declined = false;
  session = null;
  show();
});

// --- theme -------------------------------------------------------------------------------------

const kThemes = ['system', 'light', 'dark'];
const themeButton = document.getElementById('theme-button');

function useTheme(theme) {
  if (theme === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  themeButton.textContent = `Theme: ${theme}`;
  document.dispatchEvent(new CustomEvent('themechange'));
}

themeButton.addEventListener('click', () => {
  const now = localStorage.getItem('memslot-theme') || 'system';
  const next = kThemes[(kThemes.indexOf(now) + 1) % kThemes.length];
  localStorage.setItem('memslot-theme', next);
  useTheme(next);
});
matchMedia('(prefers-color-scheme: dark)').addEventListener('change',
    () => document.dispatchEvent(new CustomEvent('themechange')));

// --- keys --------------------------------------------------------------------------------------

// "/" goes to the page's search field or prompt, as elsewhere.
document.addEventListener('keydown', (event) => {
  if (event.key !== '/' || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest('input, textarea, select, dialog')) return;
  const target = main.querySelector('[data-slash]');
  if (!target) return;
  target.focus();
  event.preventDefault();
});

document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault();  // the fragment is the route
  main.focus();
});

replace(document.querySelector('.tabs'), kTabs.map((name) =>
    h('a', {href: `#/${name}`}, kPages[name][0])));
useTheme(localStorage.getItem('memslot-theme') || 'system');
takeTokenFromAddress();
addEventListener('hashchange', () => {
  if (takeTokenFromAddress()) session = null;
  show();
});
show({focus: false});
repeated(kStatusMs, readStatus, new AbortController().signal);

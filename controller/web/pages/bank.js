// All memories: search, sorting and paging done by the controller, one page at a time here.
import {get, isAbort, post} from '../lib/api.js';
import {memoryHref, memoryTag} from '../lib/colours.js';
import {debounced, h, replace} from '../lib/dom.js';
import {bytes, integer, kAbsent, percent, real, signed, time} from '../lib/format.js';
import {askToLearn} from '../lib/learn.js';
import {act, dialog, emptyState, errorBox, field, loading, pager, select, table}
    from '../lib/widgets.js';

export const title = () => 'Bank';

const kDefaults = {q: '', namespace: '', kind: '', sort: 'id', order: 'asc', offset: '0', limit: '50'};
const nameOf = (row) => `${row.namespace}/${row.id}`;

const kColumns = [
  {title: 'Memory', sort: 'id', grow: true, cell: (row) => memoryTag(nameOf(row))},
  {title: 'Source', sort: 'source', grow: true, wide: 1, cell: (row) => h('bdi', {}, row.source)},
  {title: 'Kind', cell: (row) => row.kind},
  {title: 'Layer', num: true, wide: 3, cell: (row) => integer(row.layer)},
  {title: 'Version', sort: 'version', num: true, wide: 2, cell: (row) => integer(row.version)},
  {title: 'Size', sort: 'bytes', num: true, wide: 2, cell: (row) => bytes(row.payload_bytes)},
  {title: 'Keys', sort: 'keys', num: true, wide: 3, cell: (row) => integer(row.keys)},
  {title: 'Uses', sort: 'uses', num: true, wide: 0, cell: (row) => integer(row.uses)},
  {title: 'Gain', sort: 'gain', num: true, cell: (row) => signed(row.mean_net_gain)},
  {title: 'Recall', sort: 'recall', num: true, wide: 1, cell: (row) => percent(row.recall)},
  {title: 'NLL', num: true, wide: 2, cell: (row) => row.nll_before === null
    ? kAbsent : `${real(row.nll_before)} → ${real(row.nll_after)}`},
  {title: 'Created', sort: 'created', num: true, wide: 1, cell: (row) => time(row.created_unix_ms)},
];

async function askToImport() {
  const file = h('input', {type: 'file', 'data-first': true});
  const ns = h('input', {type: 'text', placeholder: 'as exported', autocomplete: 'off'});
  const id = h('input', {type: 'text', placeholder: 'as exported', autocomplete: 'off'});
  const place = h('div');
  const go = h('button', {type: 'submit', class: 'primary'}, 'Import');
  return dialog('Import a memory', (close) => h('form', {on: {submit: async (event) => {
    event.preventDefault();
    const made = await act(go, place, () => {
      if (!file.files.length) throw new Error('Choose a file that was exported from a bank.');
      return post(['memories', 'import'], file.files[0],
          {query: {namespace: ns.value, id: id.value}, timeout: 0});
    });
    if (made) close(made.version);
  }}},
  field('File', file, 'One version of a memory, as "Export" of a memory\'s page saves it.'),
  field('Namespace', ns), field('Id', id), place,
  h('div', {class: 'row end'},
      h('button', {type: 'button', on: {click: () => close()}}, 'Cancel'), go)));
}

export async function show(root, {query, signal, session}) {
  root.classList.add('fills');
  const state = {...kDefaults, ...Object.fromEntries(query)};
  let inFlight = null;
  const view = h('div', {class: 'scroller', tabindex: '-1'});
  const pages = h('div', {class: 'row'});
  const count = h('span', {class: 'dim', role: 'status'});

  // The address says what is shown; typing changes it in place, paging can be gone back from.
  function remember(push) {
    const kept = Object.entries(state).filter(([name, value]) => value !== (kDefaults[name] ?? ''));
    const text = new URLSearchParams(kept).toString();
    history[push ? 'pushState' : 'replaceState'](null, '', text ? `#/bank?${text}` : '#/bank');
  }

  function change(values, {push = false} = {}) {
    Object.assign(state, values);
    remember(push);
    load();
  }

  async function learn() {
    const job = await askToLearn(session);
    if (job) location.hash = `#/jobs/${encodeURIComponent(job)}`;
  }

  function nothing() {
    if (state.q || state.namespace || state.kind) {
      return emptyState('Nothing matches', 'The search looks at ids, namespaces and sources.',
          h('button', {type: 'button', on: {click: () => {
            search.value = ns.value = kind.value = '';
            change({q: '', namespace: '', kind: '', offset: '0'});
          }}}, 'Show all memories'));
    }
    return emptyState('The bank is empty',
        'Learn a text into a first memory, or import one that was exported elsewhere.',
        h('button', {type: 'button', class: 'primary', on: {click: learn}}, 'Learn a text'));
  }

  // A newer request ends the older one: what comes late is never shown.
  async function load() {
    inFlight?.abort();
    const mine = inFlight = new AbortController();
    view.setAttribute('aria-busy', 'true');
    try {
      const limit = Number(state.limit), offset = Number(state.offset);
      const page = await get(['memories'], state, {signal: AbortSignal.any([signal, mine.signal])});
      const total = page.total;
      count.textContent = total === 1 ? '1 memory' : `${integer(total)} memories`;
      if (!page.memories.length && total > 0) {  // behind the end: some were deleted meanwhile
        change({offset: String(Math.floor((total - 1) / limit) * limit)});
        return;
      }
      const focused = document.activeElement?.dataset?.sort;
      replace(view, page.memories.length ? table({
        label: 'Memories', columns: kColumns, rows: page.memories, sort: state.sort,
        order: state.order, onSort: (sort, order) => change({sort, order, offset: '0'}),
        open: (row) => {
          location.hash = memoryHref(nameOf(row));
        }}) : nothing());
      if (focused) view.querySelector(`[data-sort="${focused}"]`)?.focus();
      view.scrollTop = 0;
      replace(pages, pager({offset, limit, total, go: (to) =>
        change({offset: String(to)}, {push: true})}));
    } catch (error) {
      if (!isAbort(error)) replace(view, errorBox(error, load));
    } finally {
      if (inFlight === mine) view.removeAttribute('aria-busy');
    }
  }

  const typed = debounced(100, (values) => change({...values, offset: '0'}), signal);
  const search = h('input', {type: 'search', placeholder: 'Search id, namespace, source  ( / )',
    'aria-label': 'Search memories', value: state.q, 'data-slash': true, autocomplete: 'off',
    on: {input: () => typed({q: search.value})}});
  const ns = session.namespaces
    ? select([['', 'All namespaces'], ...session.namespaces], state.namespace,
        {'aria-label': 'Namespace', on: {change: () => change({namespace: ns.value, offset: '0'})}})
    : h('input', {type: 'text', class: 'short', placeholder: 'Namespace', 'aria-label': 'Namespace',
        value: state.namespace, autocomplete: 'off',
        on: {input: () => typed({namespace: ns.value.trim()})}});
  const kind = select([['', 'All kinds'], 'mlp', 'lora', 'delta'], state.kind,
      {'aria-label': 'Kind', on: {change: () => change({kind: kind.value, offset: '0'})}});
  const size = select(['25', '50', '100', '200', '500'].map((n) => [n, `${n} a page`]), state.limit,
      {'aria-label': 'Rows a page', on: {change: () => change({limit: size.value, offset: '0'})}});

  replace(root,
      h('div', {class: 'toolbar'}, h('h1', {}, 'Bank'), search, ns, kind, count,
          h('div', {class: 'row push'},
              h('button', {type: 'button', on: {click: async () => {
                const version = await askToImport();
                if (version) location.hash = memoryHref(nameOf(version));
              }}}, 'Import'),
              h('button', {type: 'button', class: 'primary', on: {click: learn}}, 'Learn a text'))),
      view, h('div', {class: 'footer'}, pages, size));
  replace(view, loading('Reading the bank'));
  await load();
  return {refresh: load};
}

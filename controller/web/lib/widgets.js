// Parts that every page is made of: tables, pagers, dialogs, errors, empty states, progress.
import {isAbort} from './api.js';
import {announce, h, replace} from './dom.js';
import {integer} from './format.js';

// --- messages ----------------------------------------------------------------------------------

export function errorBox(error, retry) {
  return h('div', {class: 'error-box', role: 'alert'},
      h('strong', {}, error.name === 'ConnectionError' ? 'No connection' : 'That did not work'),
      h('p', {dir: 'auto'}, error.message),
      error.code ? h('p', {class: 'dim'}, `code: ${error.code}`) : null,
      retry ? h('button', {type: 'button', on: {click: retry}}, 'Try again') : null);
}

// What there would be here, and what to do next.
export function emptyState(title, text, ...actions) {
  return h('div', {class: 'empty'}, h('h2', {}, title), h('p', {}, text),
      actions.length ? h('div', {class: 'row'}, actions) : null);
}

export function loading(what = 'Loading') {
  return h('p', {class: 'loading', role: 'status'}, `${what}…`);
}

// Fills `node` with what `make` resolves to; until then it says so; an error is shown in its place.
export async function fill(node, make, signal) {
  replace(node, loading());
  try {
    const made = await make();
    if (!signal?.aborted) replace(node, made);
  } catch (error) {
    if (isAbort(error) || signal?.aborted) return;
    replace(node, errorBox(error, () => fill(node, make, signal)));
  }
}

// Runs an action of a button: off while it runs, its error beside it (`place`).
export async function act(button, place, action) {
  button.disabled = true;
  replace(place);
  try {
    return await action();
  } catch (error) {
    if (!isAbort(error)) replace(place, errorBox(error));
    return undefined;
  } finally {
    button.disabled = false;
  }
}

export function progress(label, done, all) {
  const bar = h('progress', {'aria-label': label});
  if (all > 0) {
    bar.max = all;
    bar.value = Math.min(done, all);
  }
  return bar;
}

// Pairs of a name and a value; null values are left out.
export function facts(pairs) {
  return h('dl', {class: 'facts'}, pairs.filter(([, value]) => value !== null && value !== undefined)
      .map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))));
}

export function section(title, ...content) {
  return h('section', {class: 'panel', 'aria-label': title}, h('h2', {}, title), content);
}

// --- tables ------------------------------------------------------------------------------------

// columns: {key, title, cell(row), num, sort: name to sort by, wide: hidden on narrow screens}.
// Rows with `open(row)` open on click; their first cell holds the link for the keyboard.
export function table({label, columns, rows, sort, order, onSort, open, rowClass}) {
  const classes = (c) => [c.num ? 'num' : '', c.wide ? `wide-${c.wide}` : '', c.grow ? 'grow' : '']
      .join(' ').trim() || null;
  const heads = columns.map((c) => {
    if (!c.sort || !onSort) return h('th', {scope: 'col', class: classes(c)}, c.title);
    const active = c.sort === sort;
    const direction = !active ? 'none' : order === 'desc' ? 'descending' : 'ascending';
    return h('th', {scope: 'col', class: classes(c), 'aria-sort': direction},
        h('button', {type: 'button', class: 'sort', 'data-sort': c.sort, on: {
          click: () => onSort(c.sort, active && order !== 'desc' ? 'desc' : 'asc')}},
            c.title, h('span', {class: 'arrow', 'aria-hidden': 'true'},
                !active ? '' : order === 'desc' ? '▼' : '▲')));
  });
  const body = h('tbody', {}, rows.map((row) => h('tr', {
    class: [open ? 'opens' : '', rowClass?.(row) || ''].join(' ').trim() || null,
    on: open ? {click: (event) => {
      if (!event.target.closest('a, button, input, select') && !String(getSelection())) open(row);
    }} : undefined,
  }, columns.map((c) => h('td', {class: classes(c)}, c.cell(row))))));
  body.addEventListener('keydown', moveBetweenRows);
  return h('table', {'aria-label': label}, h('thead', {}, h('tr', {}, heads)), body);
}

// Arrow up and down go from row to row, by what can be focused in them.
function moveBetweenRows(event) {
  if (event.key !== 'ArrowDown' && event.key !== 'ArrowUp') return;
  if (event.target.matches('input, select')) return;
  const row = event.target.closest('tr');
  const next = event.key === 'ArrowDown' ? row?.nextElementSibling : row?.previousElementSibling;
  const target = next?.querySelector('a, button');
  if (!target) return;
  target.focus();
  event.preventDefault();
}

// "51–100 of 100,000", with buttons; `go(offset)`.
export function pager({offset, limit, total, go, label = 'Pages'}) {
  const last = Math.max(0, Math.floor((total - 1) / limit) * limit);
  const button = (text, name, to, on) => h('button', {type: 'button', 'aria-label': name,
    disabled: !on, on: {click: () => go(to)}}, text);
  const page = h('input', {type: 'number', min: 1, max: last / limit + 1, class: 'page-number',
    'aria-label': 'Page', value: Math.floor(offset / limit) + 1, on: {change: (event) => {
      if (!event.target.value) return;
      const wanted = Math.round(Number(event.target.value) || 1) - 1;
      go(Math.max(0, Math.min(wanted * limit, last)));
    }}});
  const end = Math.min(offset + limit, total);
  return h('nav', {class: 'pager', 'aria-label': label},
      button('«', 'First page', 0, offset > 0),
      button('‹', 'Previous page', Math.max(0, offset - limit), offset > 0),
      page, h('span', {class: 'dim'}, `of ${integer(last / limit + 1)}`),
      button('›', 'Next page', offset + limit, end < total),
      button('»', 'Last page', last, end < total),
      h('span', {class: 'range'},
          total === 0 ? 'none' : `${integer(offset + 1)}–${integer(end)} of ${integer(total)}`));
}

// --- dialogs -----------------------------------------------------------------------------------

// A modal dialog; resolves when it is closed, to what `close(value)` was called with.
export function dialog(title, build) {
  return new Promise((resolve) => {
    let result;
    const node = h('dialog', {'aria-label': title, on: {close: () => {
      node.remove();
      resolve(result);
    }}});
    const close = (value) => {
      result = value;
      node.close();
    };
    append(node, title, build(close), close);
    document.body.append(node);
    node.showModal();
    node.querySelector('[data-first]')?.focus();
  });
}

function append(node, title, content, close) {
  node.append(h('header', {}, h('h2', {}, title),
      h('button', {type: 'button', class: 'quiet', 'aria-label': 'Close', on: {
        click: () => close()}}, '×')));
  for (const part of [content].flat()) node.append(part);
}

// Asks before something is lost. With `name`, it must be typed. `action` runs inside the dialog, so
// that its error is shown there.
export function confirm({title, text, name, verb, danger = true, action}) {
  return dialog(title, (close) => {
    const place = h('div');
    const go = h('button', {type: 'submit', class: danger ? 'danger' : 'primary',
      disabled: Boolean(name)}, verb);
    const field = name ? h('input', {type: 'text', autocomplete: 'off', spellcheck: 'false',
      'data-first': true, id: 'confirm-name', on: {input: (event) => {
        go.disabled = event.target.value !== name;
      }}}) : null;
    return h('form', {on: {submit: async (event) => {
      event.preventDefault();
      if (field && field.value !== name) return;
      if (await act(go, place, async () => (await action(), true))) {
        announce(`${verb}: done`);
        close(true);
      }
    }}},
    h('p', {dir: 'auto'}, text),
    field ? h('label', {for: 'confirm-name'}, 'Type ', h('bdi', {class: 'mono'}, name), ' to confirm')
          : null,
    field, place,
    h('div', {class: 'row end'},
        h('button', {type: 'button', 'data-first': !field, on: {click: () => close()}}, 'Cancel'),
        go));
  });
}

// Hands bytes to the browser as a download.
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = h('a', {href: url, download: name});
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// --- fields ------------------------------------------------------------------------------------

let fieldNumber = 0;
export function field(label, input, hint) {
  input.id ||= `field-${++fieldNumber}`;
  return h('div', {class: 'field'}, h('label', {for: input.id}, label), input,
      hint ? h('small', {class: 'dim'}, hint) : null);
}

export function select(options, value, attributes = {}) {
  const node = h('select', attributes, options.map((option) => {
    const [key, text] = Array.isArray(option) ? option : [option, option];
    return h('option', {value: key}, text);
  }));
  node.value = value;
  return node;
}

export function numberField(value, attributes = {}) {
  return h('input', {type: 'number', value, ...attributes});
}

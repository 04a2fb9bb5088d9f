// The record of generations, newest first, narrowed by memory, source, policy and time.
import {get, isAbort} from '../lib/api.js';
import {memoryTag} from '../lib/colours.js';
import {debounced, h, replace} from '../lib/dom.js';
import {integer, kAbsent, oneLine, time} from '../lib/format.js';
import {emptyState, errorBox, loading, table} from '../lib/widgets.js';

export const title = () => 'Traces';

const kPage = 100;
const kMemories = 3;  // named in a row; the rest are counted

function memoriesCell(trace) {
  const some = trace.memories.slice(0, kMemories).map((name) => memoryTag(name));
  const more = trace.memories.length - some.length;
  return h('div', {class: 'tags'}, some, more > 0 ? h('span', {class: 'dim'}, `+${more}`) : null);
}

function endCell(trace) {
  if (trace.error) {
    return h('span', {class: 'bad', title: trace.error}, `failed: ${oneLine(trace.error, 30)}`);
  }
  if (!trace.ended) return h('span', {class: 'warn'}, 'no end');
  return trace.finish || 'complete';
}

const kColumns = [
  {title: 'Time', cell: (t) => h('a', {href: `#/trace/${t.trace}`}, time(t.created_unix_ms))},
  {title: 'Prompt', grow: true, cell: (t) => h('bdi', {}, oneLine(t.prompt, 80) || kAbsent)},
  {title: 'Memories', grow: true, wide: 1, cell: memoriesCell},
  {title: 'Policy', wide: 2, cell: (t) => h('bdi', {}, oneLine(t.policy, 20) || 'the user')},
  {title: '', wide: 2, cell: (t) => t.origin},
  {title: 'Steps', num: true, cell: (t) => integer(t.steps)},
  {title: 'Tokens', num: true, wide: 0, cell: (t) => integer(t.tokens)},
  {title: 'Ended by', wide: 0, cell: endCell},
];

export async function show(root, {query, signal, session}) {
  root.classList.add('fills');
  const state = {memory: '', source: '', policy: '', since: '', ...Object.fromEntries(query)};
  const view = h('div', {class: 'scroller'});
  const more = h('div', {class: 'row'});
  let traces = [], inFlight = null;

  function nothing() {
    if (!session.traces) {
      return emptyState('No traces are kept', 'This controller was started with --traces off.');
    }
    if (Object.values(state).some(Boolean)) {
      return emptyState('No trace matches', 'Memories are named NS/ID or ID; a policy by its beginning.');
    }
    return emptyState('No traces yet', 'Every text that is generated leaves one.',
        h('a', {class: 'button primary', href: '#/generate'}, 'Generate a text'));
  }

  async function load(after = '') {
    inFlight?.abort();
    const mine = inFlight = new AbortController();
    const {since, ...named} = state;
    try {
      const page = await get(['traces'], {...named, after, limit: kPage,
        since_unix_ms: since ? new Date(`${since}T00:00`).getTime() : ''},
      {signal: AbortSignal.any([signal, mine.signal])});
      traces = after ? [...traces, ...page.traces] : page.traces;
      replace(view, traces.length ? table({label: 'Traces', columns: kColumns, rows: traces,
        open: (t) => {
          location.hash = `#/trace/${t.trace}`;
        }}) : nothing());
      replace(more, traces.length ? h('span', {class: 'dim'}, `${integer(traces.length)} shown`) : null,
          page.next ? h('button', {type: 'button', on: {click: () => load(page.next)}}, 'Older ones')
                    : null);
    } catch (error) {
      if (!isAbort(error)) replace(view, errorBox(error, () => load(after)));
    }
  }

  const change = debounced(250, () => {
    const text = new URLSearchParams(Object.entries(state).filter(([, v]) => v)).toString();
    history.replaceState(null, '', text ? `#/traces?${text}` : '#/traces');
    load();
  }, signal);
  const box = (name, label, type = 'text', attributes = {}) => {
    const input = h('input', {type, placeholder: label, 'aria-label': label, value: state[name],
      autocomplete: 'off', ...attributes, on: {input: () => {
        state[name] = input.value.trim();
        change();
      }}});
    return input;
  };
  replace(root, h('div', {class: 'toolbar'}, h('h1', {}, 'Traces'),
      box('memory', 'Memory', 'search', {'data-slash': true}),
      box('source', 'Source', 'text', {class: 'short'}), box('policy', 'Policy', 'text', {class: 'short'}),
      h('label', {class: 'row dim'}, 'Since', box('since', 'Since', 'date'))),
  view, h('div', {class: 'footer'}, more));
  replace(view, loading('Reading the traces'));
  await load();
  return {refresh: () => load()};
}

// One memory: statistics, source text with its segments, keys on the map, versions, use over time.
import {file, get, post, remove} from '../lib/api.js';
import {chart} from '../lib/charts.js';
import {computedColour, memoryColour, memoryHref, memoryTag} from '../lib/colours.js';
import {h, replace} from '../lib/dom.js';
import {bytes, characterBoundary, integer, kAbsent, oneLine, percent, plural, real, seconds, signed,
  time, utf16Offsets} from '../lib/format.js';
import {act, confirm, emptyState, facts, fill, loading, numberField, pager, save, section, select,
  table} from '../lib/widgets.js';

export const title = ({path}) => path.join('/');

const kTextPage = 20000;  // characters of a source at once
const kOthers = 500;      // memories beside it on the map
const kTraces = 1000;     // the newest that use over time is made of
const kDayMs = 86400000;

// What statistics are compared in: name, title, digits, and whether less is better.
const kStatistics = [
  ['nll_before', 'NLL with base', 4, null],
  ['nll_after', 'NLL with the memory', 4, true],
  ['recall_before', 'Recall with base', 4, null],
  ['recall', 'Recall', 4, false],
  ['locality', 'Change of other texts', 4, true],
  ['wise_min_activation', 'Least activation', 4, false],
  ['wall_seconds', 'Seconds', 1, true],
  ['steps', 'Steps', 0, null],
  ['tokens', 'Tokens', 0, null],
  ['segments', 'Segments', 0, null],
];

function configOf(version) {
  try {
    return JSON.parse(version.stats?.config || '{}');
  } catch {
    return {};
  }
}

// --- source text and segments ------------------------------------------------------------------

// Where the text is cut: the bounds of all segments, so that each piece is wholly in or out of one.
function cutsOf(text, ranges) {
  return [...new Set([0, text.length, ...ranges.flat()])].sort((a, b) => a - b);
}

// onSegment(index) is called when one is chosen; the returned choose(index) marks it.
function sourceView(text, layout, onSegment) {
  const bounds = utf16Offsets(text, layout.segments.flatMap((s) => [s.begin, s.end]));
  const ranges = layout.segments.map((_, i) => [bounds[2 * i], bounds[2 * i + 1]]);
  const cuts = cutsOf(text, ranges);
  const view = h('div', {class: 'source', dir: 'auto', tabindex: '0', 'aria-label': 'Source text'});
  const pages = h('div');
  const says = h('span', {class: 'dim', role: 'status'});
  let first = 0, chosen = -1;

  function show() {
    const end = characterBoundary(text, Math.min(first + kTextPage, text.length));
    const [from, to] = chosen < 0 ? [0, 0] : ranges[chosen];
    const pieces = [];
    for (let i = 0; i + 1 < cuts.length; ++i) {
      const a = Math.max(cuts[i], first), b = Math.min(cuts[i + 1], end);
      if (a >= b) continue;
      const marked = cuts[i] >= from && cuts[i + 1] <= to ? ' marked' : '';
      pieces.push(h('span', {class: `piece${i % 2 ? ' odd' : ''}${marked}`, 'data-from': cuts[i]},
          text.slice(a, b)));
    }
    replace(view, pieces);
    replace(pages, text.length > kTextPage ? pager({offset: first, limit: kTextPage,
      total: text.length, label: 'Pages of the text', go: (to) => {
        first = characterBoundary(text, to);
        show();
      }}) : null);
  }

  function choose(index) {
    chosen = Math.max(0, Math.min(index, ranges.length - 1));
    const [from, to] = ranges[chosen];
    if (from < first || from >= first + kTextPage) {
      first = characterBoundary(text, Math.floor(from / kTextPage) * kTextPage);
    }
    show();
    number.value = chosen + 1;
    says.textContent = `segment ${chosen + 1} of ${ranges.length}, ${plural(to - from, 'character')}`;
    const mark = view.querySelector('.marked');
    if (mark) view.scrollTop = Math.max(0, mark.offsetTop - view.offsetTop - 60);
    onSegment(chosen);
  }

  // A piece lies in one segment or, where windows overlap, in two: the last that begins before it.
  view.addEventListener('click', (event) => {
    const piece = event.target.closest('.piece');
    if (!piece || String(getSelection())) return;
    const at = Number(piece.dataset.from);
    choose(ranges.findLastIndex(([from, to]) => from <= at && at < to));
  });
  const step = (by) => () => choose(chosen < 0 ? 0 : chosen + by);
  const number = numberField('', {min: 1, max: ranges.length, class: 'segment-number',
    'aria-label': 'Segment', on: {change: () => {
      if (number.value) choose(Number(number.value) - 1);
    }}});
  show();
  const words = layout.window_words
    ? `${layout.layout}, windows of ${layout.window_words} words every ${layout.stride_words}`
    : layout.layout;
  return {choose, node: h('div', {class: 'stack'},
      ranges.length ? h('div', {class: 'row'},
          h('button', {type: 'button', 'aria-label': 'Previous segment', on: {click: step(-1)}}, '‹'),
          number,
          h('button', {type: 'button', 'aria-label': 'Next segment', on: {click: step(1)}}, '›'), says,
          h('span', {class: 'dim push'}, `${plural(ranges.length, 'segment')}: ${words}`)) : null,
      view, pages)};
}

// --- keys on the map ---------------------------------------------------------------------------

const faded = (colour) => colour.replace(/^rgb\((.*)\)$/, 'rgba($1, 0.55)');

function mapChart(name, map, signal, onKey) {
  const {own, others, mean} = map;
  let chosen = -1;
  const series = () => [
    {name: 'keys of this memory', type: 'scatter', points: own, radius: own.map((_, i) =>
      i === chosen ? 9 : 5), shape: own.map((_, i) => i === chosen ? 'rectRot' : 'circle'),
     colour: () => memoryColour(name), order: 0},
    {name: 'their mean', type: 'scatter', points: mean ? [mean] : [], radius: 8, shape: 'crossRot',
     stroke: 2.5, colour: () => computedColour('--text'), order: -1},
    {name: 'other memories', type: 'scatter', points: others.map(({x, y}) => ({x, y})), radius: 2.5,
     shape: 'rect', colour: () => memoryColour('base'),
     colours: () => others.map((o) => faded(memoryColour(o.memory))), order: 1},
  ];
  const made = chart({
    caption: 'Keys in the two largest whitened directions; click a key for its segment, another ' +
        'memory for its page',
    size: 'tall', series: series(), x: {min: -1, max: 1}, y: {min: -1, max: 1},
    tooltip: (s, i) => s === 0 ? `segment ${i + 1}` : s === 1 ? 'mean of the keys'
      : `${others[i].memory} (${others[i].source})`,
    pick: (s, i) => {
      if (s === 0) onKey(i);
      if (s === 2) location.hash = memoryHref(others[i].memory);
    }}, signal);
  return {node: made.node, choose(index) {
    chosen = index;
    made.update(series());
  }};
}

// --- versions ----------------------------------------------------------------------------------

function comparison(a, b) {
  const difference = (name) => a.stats[name] === null || b.stats[name] === null
    || a.stats[name] === undefined ? null : b.stats[name] - a.stats[name];
  const change = ([name, , digits, lessIsBetter]) => {
    const d = difference(name);
    if (!d) return h('span', {class: 'dim'}, d === 0 ? 'equal' : kAbsent);
    const good = lessIsBetter === null ? '' : (d < 0) === lessIsBetter ? 'good' : 'bad';
    const words = {good: ' better', bad: ' worse', '': ''}[good];
    return h('span', {class: good}, signed(d, digits), words);
  };
  const rows = [...kStatistics];
  const [ca, cb] = [configOf(a), configOf(b)];
  const options = [...new Set([...Object.keys(ca), ...Object.keys(cb)])]
      .filter((key) => JSON.stringify(ca[key]) !== JSON.stringify(cb[key]));
  return [h('div', {class: 'scroll-x'}, table({label: `Version ${a.version} against ${b.version}`,
    rows, columns: [
      {title: 'Statistic', cell: (s) => s[1]},
      {title: `@${a.version}`, num: true, cell: (s) => real(a.stats[s[0]], s[2])},
      {title: `@${b.version}`, num: true, cell: (s) => real(b.stats[s[0]], s[2])},
      {title: 'Change', num: true, cell: change},
    ]})),
  h('p', {class: 'dim'}, options.length ? 'Options that differ: ' + options.map((key) =>
    `${key} ${JSON.stringify(ca[key]) ?? 'absent'} → ${JSON.stringify(cb[key]) ?? 'absent'}`).join(', ')
    : 'The options are the same.')];
}

async function allVersions(ns, id, signal) {
  const out = [];
  for (let after = 0;;) {
    const page = await get(['memories', ns, id, 'history'], {after}, {signal});
    out.push(...page.versions);
    if (!page.next) return out;
    after = page.next;
  }
}

function versionsView(versions, head, rollBack) {
  const byToken = new Map(versions.map((v) => [v.token, v]));
  const numbers = versions.map((v) => [v.version, `@${v.version}`]);
  const diff = h('div');
  const from = select(numbers, versions.at(-2)?.version ?? head, {'aria-label': 'Compare version'});
  const to = select(numbers, versions.at(-1).version, {'aria-label': 'with version'});
  const compare = () => {
    const find = (n) => versions.find((v) => String(v.version) === n);
    replace(diff, from.value === to.value ? null : comparison(find(from.value), find(to.value)));
  };
  from.addEventListener('change', compare);
  to.addEventListener('change', compare);
  if (versions.length > 1) compare();
  const columns = [
    {title: 'Version', cell: (v) => h('strong', {}, `@${v.version}`)},
    {title: 'Made from', cell: (v) => v.parent ? `@${byToken.get(v.parent)?.version ?? '?'}` : kAbsent},
    {title: 'Origin', cell: (v) => v.origin.replace('_', ' ')},
    {title: '', cell: (v) => v.version === head ? h('span', {class: 'good'}, 'head')
      : v.branch ? h('span', {class: 'warn', title: 'lost the race for the head; kept beside it'},
          'branch') : null},
    {title: 'NLL', num: true, cell: (v) => real(v.stats.nll_after)},
    {title: 'Recall', num: true, cell: (v) => percent(v.stats.recall)},
    {title: 'Size', num: true, wide: 2, cell: (v) => bytes(v.payload_bytes)},
    {title: 'Created', num: true, wide: 1, cell: (v) => time(v.created_unix_ms)},
    {title: '', cell: (v) => v.version === head ? null : h('button', {type: 'button', class: 'quiet',
      'aria-label': `Roll back to version ${v.version}`, on: {click: () => rollBack(v)}}, 'roll back')},
  ];
  return [h('div', {class: 'scroll-x'}, table({label: 'Versions', rows: [...versions].reverse(),
    columns, rowClass: (v) => v.version === head ? 'selected' : ''})),
  versions.length > 1 ? h('div', {class: 'stack'}, h('div', {class: 'row'}, h('h3', {}, 'Compare'),
      from, h('span', {class: 'dim'}, 'with'), to), diff) : null];
}

// --- use over time -----------------------------------------------------------------------------

function usesView(name, traces, signal) {
  if (!traces.length) {
    return emptyState('Not used yet', 'No recorded text was written with it.',
        h('a', {class: 'button', href: `#/generate?memory=${encodeURIComponent(name)}`},
            'Generate with it'));
  }
  const days = new Map();
  for (const trace of traces) {
    const day = Math.floor(trace.created_unix_ms / kDayMs);
    days.set(day, (days.get(day) || 0) + 1);
  }
  const last = Math.max(...days.keys()), first = Math.min(last - 13, ...days.keys());
  const points = [];
  for (let day = first; day <= last; ++day) points.push({x: day, y: days.get(day) || 0});
  const made = chart({caption: 'Traces in which it was active, by day' +
        (traces.length === kTraces ? ` (of the newest ${integer(kTraces)})` : ''), size: 'small',
    series: [{name: 'traces', type: 'bar', points, colour: () => memoryColour(name)}],
    x: {offset: true, format: (day) => time(day * kDayMs).slice(0, 10),
      ticks: {stepSize: 1, maxTicksLimit: 8}},
    y: {min: 0, ticks: {precision: 0}}, tooltip: (s, i) =>
      `${time(points[i].x * kDayMs).slice(0, 10)}: ${plural(points[i].y, 'trace')}`}, signal);
  return [made.node, h('ul', {class: 'plain'}, traces.slice(0, 5).map((t) => h('li', {},
      h('a', {href: `#/trace/${t.trace}`}, time(t.created_unix_ms)), ' ',
      h('bdi', {class: 'dim'}, oneLine(t.prompt, 80))))),
  h('p', {}, h('a', {href: `#/traces?memory=${encodeURIComponent(name)}`}, 'All its traces'))];
}

// --- the page ----------------------------------------------------------------------------------

function statisticsFacts(v) {
  const {stats} = v;
  return facts([
    ['NLL of its text', `${real(stats.nll_before)} → ${real(stats.nll_after)}`],
    ['Recall', `${percent(stats.recall_before)} → ${percent(stats.recall)}`],
    ['Other texts', stats.locality === null ? kAbsent : `${signed(100 * stats.locality, 1)} %`],
    ['Learned in', `${seconds(stats.wall_seconds)}, ${plural(stats.steps ?? 0, 'step')}`],
    ['Text', plural(stats.tokens ?? 0, 'token')],
    ['Keys', integer(v.keys)],
    ['Payload', `${bytes(v.payload_bytes)}, ${v.dtype}`],
    ['Layer', integer(v.signature.layer)],
    ['Created', time(v.created_unix_ms)],
    ['Origin', h('bdi', {}, `${v.origin.replace('_', ' ')} ${v.origin_id}`)],
  ]);
}

export async function show(root, {path, signal}) {
  const [ns, id] = path;
  const name = `${ns}/${id}`;
  replace(root, loading('Reading the memory'));
  const memory = await get(['memories', ns, id], {}, {signal});
  const v = memory.version;
  const place = h('div');
  const here = {ns, id, name, signal};

  const rollBack = async (version) => {
    const done = await confirm({title: `Roll back to version ${version.version}`, verb: 'Roll back',
      danger: false, text: `A new version @${v.version + 1} with what @${version.version} holds becomes ` +
          'the head. No version is lost.',
      action: () => post(['memories', ns, id, 'rollback'], {to: version.version})});
    if (done) show(root, {path, signal});
  };
  const erase = async () => {
    const done = await confirm({title: 'Delete the memory', verb: 'Delete', name: id,
      text: `All versions of ${name}, its text, and the traces in which it was active are removed. ` +
          'That cannot be undone.',
      action: () => remove(['memories', ns, id])});
    if (done) location.hash = '#/bank';
  };
  const download = (event) => act(event.target, place, async () => {
    save(await file(['memories', ns, id, 'export'], {signal}), `${id}@${v.version}.msm`);
  });

  replace(root,
      h('div', {class: 'toolbar'}, h('h1', {}, memoryTag(`${name}@${v.version}`, {link: false})),
          h('span', {class: 'dim'}, `${v.signature.kind}, source `, h('bdi', {}, v.source)),
          h('div', {class: 'row push'},
              h('a', {class: 'button primary', href: `#/generate?memory=${encodeURIComponent(name)}`},
                  'Generate with it'),
              h('button', {type: 'button', on: {click: download}}, 'Export'),
              h('button', {type: 'button', class: 'danger', on: {click: erase}}, 'Delete'))),
      place,
      h('div', {class: 'stack'},
          section('Statistics', statisticsFacts(v),
              facts([['Used', plural(memory.uses, 'step')],
                ['Mean net gain', `${signed(memory.mean_net_gain, 3)} nats a token`]])),
          h('div', {class: 'two'}, ...textAndMap(here, memory)),
          h('div', {class: 'two'}, ...versionsAndUse(here, v, rollBack))));
  return {};
}

function textAndMap({ns, id, name, signal}, memory) {
  let source = null, map = null;
  const sourcePlace = h('div'), mapPlace = h('div');
  fill(sourcePlace, async () => {
    if (!memory.source_text) {
      return emptyState('No text is kept', 'The bank does not hold the text that it was learned from.');
    }
    const layout = await get(['memories', ns, id, 'segments'], {}, {signal});
    source = sourceView(memory.source_text, layout, (i) => map?.choose(i));
    return source.node;
  }, signal);
  fill(mapPlace, async () => {
    const found = await get(['memories', ns, id, 'map'], {others: kOthers}, {signal});
    if (!found.own.length) {
      return emptyState('No keys', 'It is not proposed by similarity: it is named.');
    }
    map = mapChart(name, found, signal, (i) => source?.choose(i));
    return map.node;
  }, signal);
  return [section('Source text', sourcePlace), section('Keys', mapPlace)];
}

function versionsAndUse({ns, id, name, signal}, head, rollBack) {
  const versions = h('div'), uses = h('div');
  fill(versions, async () =>
    versionsView(await allVersions(ns, id, signal), head.version, rollBack), signal);
  fill(uses, async () =>
    usesView(name, (await get(['traces'], {memory: name, limit: kTraces}, {signal})).traces, signal),
  signal);
  return [section('Versions', versions), section('Use over time', uses)];
}

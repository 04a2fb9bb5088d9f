// One trace: a timeline of its steps, the text, each step's candidates, replay, and what-if.
//
// All steps are read without their candidates, in pages, and drawn as they come; the candidates of a
// step are read when it is looked at. Text and table show a window of steps around the chosen one.
import {file, get, post, remove} from '../lib/api.js';
import {chart} from '../lib/charts.js';
import {computedColour, memoryColour, memoryTag} from '../lib/colours.js';
import {announce, h, replace} from '../lib/dom.js';
import {integer, micros, oneLine, plural, real, seconds, signed, time} from '../lib/format.js';
import {Decisions, legend, memoryOf, stepPanel, StretchView} from '../lib/steps.js';
import {act, confirm, emptyState, errorBox, facts, field, loading, numberField, pager, save, section,
  select, table} from '../lib/widgets.js';

export const title = ({path}) => `Trace ${path[0]}`;

const kPage = 512;     // steps a request
const kWindow = 100;   // steps of text and table at once
const kZooms = [1000, 200, 50];
const kAxisWidth = 52; // of every chart, so that all line up with the lane (style.css: .lane)

// --- the timeline ------------------------------------------------------------------------------

// One column a step, in its memory's colour; a slider for the keyboard.
function lane(steps, onChoose, signal) {
  const canvas = h('canvas', {class: 'lane', role: 'slider', tabindex: '0', 'aria-label': 'Step',
    'aria-valuemin': '0'});
  let chosen = 0, first = 0, last = 0;  // shown: [first, last)

  function draw() {
    last ||= steps.length;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width || !steps.length) return;
    canvas.width = width * devicePixelRatio;
    canvas.height = height * devicePixelRatio;
    const context = canvas.getContext('2d');
    context.scale(devicePixelRatio, devicePixelRatio);
    const column = width / (last - first);
    for (let from = first; from < last;) {  // one rectangle a run of the same memory
      const memory = memoryOf(steps[from]);
      let to = from + 1;
      while (to < last && memoryOf(steps[to]) === memory) ++to;
      context.fillStyle = memoryColour(memory);
      context.fillRect((from - first) * column, 0, (to - from) * column + 0.3, height);
      from = to;
    }
    context.fillStyle = computedColour('--text');
    context.fillRect((chosen - first) * column - 1, 0, Math.max(2, Math.min(column, 4)), height);
  }

  function mark(index) {
    chosen = index;
    const step = steps[index];
    canvas.setAttribute('aria-valuemax', steps.length - 1);
    canvas.setAttribute('aria-valuenow', index);
    canvas.setAttribute('aria-valuetext', `step ${step.step}, ${memoryOf(step)}, entropy ` +
        `${real(step.entropy)}, surprise ${real(step.surprise)}`);
    draw();
  }

  const indexAt = (event) => Math.max(first, Math.min(last - 1,
      first + Math.floor(event.offsetX / canvas.clientWidth * (last - first))));
  canvas.addEventListener('click', (event) => onChoose(indexAt(event)));
  canvas.addEventListener('pointermove', (event) => {
    const step = steps[indexAt(event)];
    if (step) canvas.title = `step ${step.step} · ${memoryOf(step)}`;
  });
  canvas.addEventListener('keydown', (event) => {
    const to = {ArrowRight: chosen + 1, ArrowUp: chosen + 1, ArrowLeft: chosen - 1,
      ArrowDown: chosen - 1, PageDown: chosen + 50, PageUp: chosen - 50, Home: 0,
      End: steps.length - 1}[event.key];
    if (to === undefined) return;
    event.preventDefault();
    onChoose(Math.max(0, Math.min(to, steps.length - 1)));
  });
  const watcher = new ResizeObserver(draw);
  watcher.observe(canvas);
  document.addEventListener('themechange', draw, {signal});
  signal.addEventListener('abort', () => watcher.disconnect());
  return {node: canvas, draw, mark, range(from, to) {
    [first, last] = [from, to];
    draw();
  }};
}

function timeline(steps, onChoose, signal) {
  const strip = lane(steps, onChoose, signal);
  const points = (name, scale = 1) => steps.filter((s) => s[name] !== undefined)
      .map((s) => ({x: s.step, y: s[name] * scale}));
  const pick = (s, i, x) => onChoose(Math.max(0, Math.min(Math.round(x), steps.length - 1)));
  // Half a step more on both sides: a step's point is in the middle of its column of the lane.
  const x = () => ({min: -0.5, max: steps.length - 0.5, name: 'step',
    ticks: {precision: 0, includeBounds: false, align: 'center'}});
  const rows = [
    {caption: 'Entropy and surprise (nats)', y: {}, series: () => [
      {name: 'entropy', type: 'line', points: points('entropy')},
      {name: 'surprise', type: 'line', points: points('surprise')}]},
    {caption: 'Gain over base (nats a token; of given text only)', y: {}, only: 'gain', series: () => [
      {name: 'gain', type: 'line', points: points('gain'), colour: () => computedColour('--good')}]},
    {caption: 'Swap time (ms)', y: {min: 0}, series: () => [
      {name: 'swap', type: 'bar', points: points('swap_us', 1e-3),
       colour: () => computedColour('--dim')}]},
  ];
  const zoom = select([['0', 'All steps'], ...kZooms.map((n) => [n, `${n} steps`])], '0',
      {'aria-label': 'Steps of the timeline', on: {change: () => show()}});
  const zoomRow = h('div', {class: 'row'}, zoom,
      h('span', {class: 'dim'}, 'around the step that is looked at'));
  const node = h('div', {}, zoomRow,
      h('figure', {}, h('figcaption', {}, 'Memory of each step'), strip.node));
  let charts = [], chosen = 0, first = 0, last = 0;

  // The range moves only when the step leaves it: what one looks at stays in place.
  function show() {
    const count = Number(zoom.value);
    if (!count || count >= steps.length) {
      [first, last] = [0, steps.length];
    } else if (last - first !== count || chosen < first || chosen >= last) {
      first = Math.max(0, Math.min(chosen - Math.floor(count / 2), steps.length - count));
      last = first + count;
    }
    strip.range(first, last);
    for (const c of charts) c.range(first - 0.5, last - 0.5);
  }
  return {
    node,
    // Once all steps are there: a chart for each figure that they have.
    draw() {
      zoomRow.hidden = steps.length <= kZooms.at(-1);
      if (charts.length) return;
      charts = rows.filter((r) => !r.only || steps.some((s) => s[r.only] !== undefined))
          .map((r) => chart({caption: r.caption, size: 'small', series: r.series(), pick, near: 'index',
            x: x(), y: {...r.y, width: kAxisWidth}}, signal));
      node.append(...charts.map((c) => c.node));
      show();
    },
    mark(index) {
      chosen = index;
      strip.mark(index);
      if (Number(zoom.value) && (index < first || index >= last)) show();
      for (const c of charts) c.cursor(steps[index].step);
    },
  };
}

// --- replay and what-if ------------------------------------------------------------------------

const differences = (result) => (result.differences || []).map((d) =>
  `${d.name}: ${JSON.stringify(d.then)} then, ${JSON.stringify(d.now)} now`).join('; ');

function divergenceText(result) {
  const at = result.divergence;
  const why = differences(result);
  return `It diverged at step ${at.step}: other ${at.what ?? 'tokens'}` +
      (at.token === undefined ? '' : ` from token ${at.token} on`) +
      (why ? `. ${why}` : '. Build, machine and settings are the same.');
}

function replayed(result, checked) {
  const same = result.identical && !result.divergence;
  return [
    h('p', {class: same ? 'good' : 'bad'}, same
      ? `✓ Identical: ${plural(result.steps, 'step')}, ${plural(result.tokens, 'token')}, every bit of ` +
        'the logits.' : `✕ ${divergenceText(result)}`),
    h('p', {class: checked.others.length ? 'bad' : 'good'}, checked.others.length
      ? `✕ Decided otherwise at step ${checked.others[0].step}: ${checked.others[0].what}`
      : `✓ Decisions: ${integer(checked.checked)} of ${integer(checked.decisions)} made again, bit for ` +
        'bit.'),
    checked.unchecked.map((why) => h('p', {class: 'dim', dir: 'auto'}, `Not made again: ${why}`)),
  ];
}

// What two texts have in common at their beginning; not half of a surrogate pair.
function commonPrefix(a, b) {
  let n = 0;
  while (n < a.length && n < b.length && a[n] === b[n]) ++n;
  return n > 0 && /[\ud800-\udbff]/.test(a[n - 1]) ? n - 1 : n;
}

function side(name, memory, text, common, pairs) {
  return h('section', {class: 'panel', 'aria-label': name}, h('h3', {}, name), memoryTag(memory),
      h('p', {class: 'side', dir: 'auto'}, h('span', {class: 'common'}, text.slice(0, common)),
          h('span', {class: 'other'}, text.slice(common))), facts(pairs));
}

function whatIfResult(result) {
  const {original, what_if: changed} = result;
  const nats = (v) => v === undefined ? null : `${real(v, 2)} nats`;
  const common = changed ? commonPrefix(original.text, changed.text) : original.text.length;
  return [
    result.divergence ? h('p', {class: 'warn'}, divergenceText(result)) : null,
    h('div', {class: 'two what-if'},
        side('As recorded', result.instead_of, original.text, common, [
          ['Log-probability', nats(original.log_prob)],
          ['with the change', nats(original.log_prob_with_change)],
          ['Gain of the change', original.gain === undefined ? null
            : `${signed(original.gain, 4)} nats a token`]]),
        changed ? side('With the change', result.memory, changed.text, common, [
          ['Log-probability', nats(changed.log_prob)],
          ['as recorded', nats(changed.log_prob_as_recorded)]])
          : h('p', {class: 'panel dim'}, 'The text was given, not written: only its probability changes.')),
  ];
}

function whatIfForm(id, state) {
  const place = h('div', {class: 'result'}), result = h('div', {class: 'result'});
  const step = numberField(state.step, {min: 0, max: Math.max(0, state.steps - 1),
    class: 'page-number'});
  const memory = h('input', {type: 'text', value: state.memory, placeholder: 'base or NS/ID@VERSION',
    autocomplete: 'off', spellcheck: 'false'});
  const slot = numberField(state.slot, {min: 0, class: 'page-number'});
  const go = h('button', {type: 'submit', class: 'primary'}, 'What if');
  const form = h('form', {on: {submit: (event) => {
    event.preventDefault();
    replace(result, loading('Computing both texts'));
    act(go, place, async () => {
      try {
        const reply = await post(['traces', id, 'replay'], {what_if: {step: Number(step.value),
          memory: memory.value.trim() || 'base', slot: Number(slot.value)}},
        {timeout: 0, signal: state.signal});
        replace(result, whatIfResult(reply));
        announce('Both texts are there.');
      } catch (error) {
        replace(result);
        throw error;
      }
    });
  }}}, h('div', {class: 'row ends'}, field('At step', step), field('this memory', memory),
      field('in slot', slot), go));
  return {
    node: h('div', {}, h('p', {class: 'dim'}, 'Another choice at one step: up to it nothing changes, ' +
        'from it on another text is written, while later steps keep their memories.'), form, place, result),
    set(values) {
      if (values.step !== undefined) step.value = values.step;
      if (values.memory !== undefined) memory.value = values.memory;
      if (values.slot !== undefined) slot.value = values.slot;
    },
    focus: () => memory.focus(),
    submit: () => form.requestSubmit(),
  };
}

// What another policy had chosen: a rule, a learned one of the bank, or a checkpoint's file.
function policyForm(id, signal) {
  const place = h('div', {class: 'result'}), result = h('div', {class: 'result'});
  const list = h('datalist', {id: 'policies'});
  const checkpoint = h('input', {type: 'file', accept: '.safetensors'});
  const policy = h('input', {type: 'text', list: 'policies', autocomplete: 'off', spellcheck: 'false',
    placeholder: 'base, nearest:0.3, learned', on: {input: () => {
      checkpoint.value = '';  // the last one named counts
    }}});
  const go = h('button', {type: 'submit'}, 'What if this policy');
  const listed = async () => {
    const {policies} = await get(['policy', 'versions'], {}, {signal});
    list.append(...['base', 'nearest', 'random', ...policies.filter((p) => p.digest).map((p) => `learned:${p.digest}`)]
        .map((value) => h('option', {value})));
  };
  const ask = async () => {
    const [chosen] = checkpoint.files;
    const options = {timeout: 0, signal};
    const other = await post(['policy', 'choices'], chosen ?? new Blob(), {...options,
      query: {trace: id, policy: chosen ? '' : policy.value.trim() || 'base'}});
    const steps = new Set(other.choices.map((c) => c.step)).size;
    const said = [
      h('p', {class: steps ? '' : 'good', dir: 'auto'}, `${oneLine(other.policy, 40)} decides otherwise at ` +
          `${integer(other.otherwise)} of ${plural(other.decisions, 'decision')}; ` +
          (steps ? `${plural(steps, 'step')} with another memory.` : 'no step has another memory.')),
      other.notes.map((note) => h('p', {class: 'dim', dir: 'auto'}, note))];
    if (!steps) return said;
    const texts = await post(['traces', id, 'replay'], {what_if: {choices: other.choices}}, options);
    return [said, whatIfResult(texts)];
  };
  const form = h('form', {on: {submit: (event) => {
    event.preventDefault();
    replace(result, loading('Asking the policy, and computing both texts'));
    act(go, place, async () => {
      try {
        replace(result, await ask());
        announce('The policy was asked.');
      } catch (error) {
        replace(result);
        throw error;
      }
    });
  }}}, h('div', {class: 'row ends'}, field('With this policy', policy), list,
      field('or this checkpoint', checkpoint), go));
  listed().catch(() => {});  // without the list the names can still be typed
  return h('div', {class: 'policy-what-if'}, h('p', {class: 'dim'}, 'Another policy is asked at every ' +
      'decision, on the text as it was recorded; nothing is published.'), form, place, result);
}

// --- steps as text and as a table --------------------------------------------------------------

const kColumns = [
  {title: 'Step', num: true, cell: (s) => s.step},
  {title: 'Memory', cell: (s) => memoryTag(memoryOf(s))},
  {title: 'Text', grow: true, cell: (s) => h('bdi', {}, oneLine(s.text, 90))},
  {title: 'Entropy', num: true, cell: (s) => real(s.entropy)},
  {title: 'Surprise', num: true, cell: (s) => real(s.surprise)},
  {title: 'Gain', num: true, cell: (s) => signed(s.gain)},
  {title: 'Swap', num: true, cell: (s) => micros(s.swap_us)},
  {title: 'Selection', num: true, cell: (s) => micros(s.select_us)},
];

function stepsView(steps, prompt, onChoose) {
  const view = new StretchView({label: 'Text by step', onStep: (step, chosen) =>
    onChoose(steps.indexOf(step), {look: !chosen})});
  const rows = h('div', {class: 'scroll-x'}), pages = h('div');
  const before = h('span', {class: 'prompt', dir: 'auto'});
  let first = -1;

  function window(from) {
    first = from;
    const shown = steps.slice(from, from + kWindow);
    view.clear();
    shown.forEach((step) => view.append(step));
    before.textContent = from === 0 ? prompt : '… ';
    replace(pages, steps.length > kWindow ? pager({offset: from, limit: kWindow, total: steps.length,
      label: 'Pages of steps', go: (to) => onChoose(to)}) : null);
    replace(rows, table({label: 'Steps', columns: kColumns, rows: shown,
      open: (step) => onChoose(steps.indexOf(step))}));
  }
  return {
    text: h('div', {class: 'text'}, before, view.node), pages, table: rows,
    mark(index) {
      const wanted = Math.floor(index / kWindow) * kWindow;
      if (wanted !== first) window(wanted);
      view.mark(steps[index].step);
      rows.querySelectorAll('tbody tr').forEach((row, i) =>
        row.classList.toggle('selected', first + i === index));
    },
    redraw() {
      if (first >= 0) window(first);
    },
  };
}

// --- the page ----------------------------------------------------------------------------------

function headFacts(t) {
  return facts([
    ['Time', time(t.created_unix_ms)], ['Steps', integer(t.steps)], ['Tokens', integer(t.tokens)],
    ['Policy', h('bdi', {}, oneLine(t.policy, 40) || 'none: the user chose')],
    ['Ended by', t.finish || (t.ended ? 'its end' : 'no end')],
    ['Decoding', t.decode_seconds === undefined ? null : seconds(t.decode_seconds)],
    ['Choices too late', t.missed_deadlines || null], ['Loads that failed', t.load_failures || null],
    ['Feedback', t.feedback?.length ? t.feedback.map((f) => signed(f, 1)).join(', ') : null],
    ['Namespaces', t.namespaces.join(', ')],
  ]);
}

export async function show(root, {path, query, signal}) {
  const id = path[0];
  const steps = [];
  replace(root, loading('Reading the trace'));
  const read = (from) => get(['traces', id], {from, steps: kPage, candidates: false}, {signal});
  const head = await read(0);
  steps.push(...head.shown);

  const decisions = new Decisions(id);
  const panel = stepPanel(signal);
  const place = h('div'), result = h('div'), readSoFar = h('span', {class: 'dim', role: 'status'});
  const whatIf = whatIfForm(id, {step: query.get('step') ?? 0, memory: query.get('memory') ?? 'base',
    slot: query.get('slot') ?? 0, steps: head.steps, signal});
  let chosen = 0;

  function choose(index, {look = false} = {}) {
    if (!steps[index]) return;
    panel.show(steps[index], decisions, (step, memory, slot) => {
      whatIf.set({step: step.step, memory, slot});
      whatIf.submit();
      whatIfSection.scrollIntoView({block: 'nearest'});
    });
    if (look) return;  // pointed at: the panel follows, the mark stays
    chosen = index;
    line.mark(index);
    list.mark(index);
    whatIf.set({step: steps[index].step});
  }

  const line = timeline(steps, choose, signal);
  const list = stepsView(steps, head.prompt, choose);
  const legendPlace = h('div');
  const whatIfSection = section('What if', whatIf.node, head.policy ? policyForm(id, signal) : null);

  const replay = (event) => {
    replace(result, loading('Computing it again'));
    act(event.target, place, async () => {
      try {
        const options = {timeout: 0, signal};
        const done = await post(['traces', id, 'replay'], {}, options);
        replace(result, replayed(done, await get(['traces', id, 'check'], {}, options)));
      } catch (error) {
        replace(result);
        throw error;
      }
    });
  };
  const download = (event) => act(event.target, place, async () =>
    save(await file(['traces', id, 'export'], {signal}), `${id}.trace`));
  const erase = async () => {
    const done = await confirm({title: 'Delete the trace', verb: 'Delete',
      text: 'The record is removed; the memories stay.', action: () => remove(['traces', id])});
    if (done) location.hash = '#/traces';
  };

  replace(root,
      h('div', {class: 'toolbar'}, h('h1', {}, 'Trace ', h('span', {class: 'mono'}, id)), readSoFar,
          h('div', {class: 'row push'},
              h('button', {type: 'button', class: 'primary', on: {click: replay}}, 'Replay'),
              h('button', {type: 'button', on: {click: download}}, 'Export'),
              h('button', {type: 'button', class: 'danger', on: {click: erase}}, 'Delete'))),
      place,
      h('div', {class: 'beside'}, h('div', {class: 'stack'},
          h('div', {class: 'panel'}, headFacts(head), result,
              head.error ? errorBox(new Error(head.error)) : null,
              (head.faults ?? []).map((f) => h('p', {class: 'warn', dir: 'auto'}, `Step ${f.step}: ${f.text}`)),
              head.damage ? h('p', {class: 'warn'}, `Damaged: ${head.damage}`) : null),
          steps.length ? [section('Timeline', line.node, legendPlace),
            section('Text', list.text, list.pages), whatIfSection,
            section('Steps', list.table)]
            : emptyState('No steps', 'Nothing was recorded after the prompt.')),
      panel.node));
  if (!steps.length) return {};

  const wanted = Number(query.get('step') ?? 0);
  replace(legendPlace, legend(steps));
  choose(Math.max(0, Math.min(wanted, steps.length - 1)));
  readRest().catch((error) => {
    if (!signal.aborted) replace(readSoFar, h('span', {class: 'bad'}, error.message));
  });

  async function readRest() {
    for (let next = head.next; next !== null && next !== undefined;) {
      readSoFar.textContent = `reading steps: ${integer(steps.length)} of ${integer(head.steps)}`;
      const page = await read(next);
      steps.push(...page.shown);
      ({next} = page);
    }
    readSoFar.textContent = '';
    line.draw();
    replace(legendPlace, legend(steps));
    list.redraw();
    choose(Math.min(Math.max(wanted, chosen), steps.length - 1));
    if (query.has('memory')) {
      whatIfSection.scrollIntoView({block: 'center'});
      whatIf.focus();
    }
  }
  return {};
}

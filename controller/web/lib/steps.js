// Steps of a generation: the text in its memories' colours, the legend, and what one step chose among.
import {get, isAbort} from './api.js';
import {memoryClasses, memoryTag} from './colours.js';
import {h, replace} from './dom.js';
import {kAbsent, micros, percent, plainName, plural, real, signed} from './format.js';
import {errorBox, facts, loading, table} from './widgets.js';

const kReasons = {
  opening: 'active from the start',
  directive: 'chosen by the policy',
  missed_deadline: 'kept: the choice came too late',
  pinned: 'named by the user',
  load_failed: 'kept: the chosen one could not be loaded',
  late: 'an earlier choice, applied late',
};

// A live step says `memory` and `reason`; a recorded one has them of each slot in `active`.
export function memoryOf(step, slot = 0) {
  return step.memory ?? step.active?.[slot]?.memory ?? 'base';
}

export function reasonOf(step) {
  const reason = step.reason ?? step.active?.[0]?.reason ?? '';
  return kReasons[reason] || reason;
}

// --- coloured text -----------------------------------------------------------------------------

// One stretch a step. In the tab order it is a single stop; arrows, Home and End move inside.
// onStep(step, chosen): looked at (hover, focus), or chosen (click, Enter).
export class StretchView {
  #steps = [];
  #nodes = [];
  #focused = 0;
  #onStep;

  constructor({label, onStep}) {
    this.#onStep = onStep;
    this.node = h('div', {class: 'stretches', role: 'listbox', 'aria-label': label, dir: 'auto',
      on: {keydown: (event) => this.#move(event)}});
    for (const name of ['mouseover', 'focusin', 'click']) {
      this.node.addEventListener(name, (event) => this.#look(event));
    }
  }

  append(step) {
    const memory = memoryOf(step);
    const last = this.#steps.at(-1);
    const turn = last && memoryOf(last) !== memory ? 'turn ' : '';  // seen where colours are alike too
    const node = h('span', {class: `stretch ${turn}${memoryClasses(memory)}`, role: 'option',
      'aria-selected': 'false', 'data-index': this.#nodes.length, 'data-memory': plainName(memory),
      tabindex: this.#nodes.length === 0 ? '0' : '-1',
      title: `step ${step.step} · ${memory}`}, step.text ?? '');
    this.#steps.push(step);
    this.#nodes.push(node);
    this.node.append(node);
  }

  clear() {
    this.#steps = [];
    this.#nodes = [];
    this.#focused = 0;
    replace(this.node);
  }

  mark(number) {
    this.#steps.forEach((step, i) =>
      this.#nodes[i].setAttribute('aria-selected', String(step.step === number)));
  }

  #look(event) {
    const node = event.target.closest('.stretch');
    if (!node) return;
    const index = Number(node.dataset.index);
    if (event.type === 'focusin') this.#rove(index);
    this.#onStep(this.#steps[index], event.type === 'click');
  }

  #rove(index) {
    this.#nodes[this.#focused]?.setAttribute('tabindex', '-1');
    this.#nodes[index].setAttribute('tabindex', '0');
    this.#focused = index;
  }

  #move(event) {
    const last = this.#nodes.length - 1;
    const to = {ArrowRight: this.#focused + 1, ArrowDown: this.#focused + 1,
      ArrowLeft: this.#focused - 1, ArrowUp: this.#focused - 1, Home: 0, End: last}[event.key];
    if (event.key === 'Enter' && last >= 0) this.#onStep(this.#steps[this.#focused], true);
    if (to === undefined || last < 0) return;
    event.preventDefault();
    this.#nodes[Math.max(0, Math.min(to, last))].focus();
  }
}

// Who wrote how much: one entry a memory, most tokens first.
export function legend(steps) {
  const tokens = new Map();
  let all = 0;
  for (const step of steps) {
    const name = plainName(memoryOf(step));
    const count = step.tokens?.length ?? 0;
    tokens.set(name, (tokens.get(name) || 0) + count);
    all += count;
  }
  const rows = [...tokens].sort((a, b) => b[1] - a[1]);
  return h('ul', {class: 'legend', 'aria-label': 'Memories that wrote'}, rows.map(([name, count]) =>
      h('li', {}, memoryTag(name), h('span', {class: 'dim'},
          ` ${plural(count, 'token')}, ${percent(all ? count / all : 0)}`))));
}

// --- one step ----------------------------------------------------------------------------------

const kStepsAtOnce = 16;  // their decisions are asked for together: neighbours are looked at next
const kAskAgainMs = 150;
const kAsks = 3;

// Decisions of a trace, read when they are first looked at.
export class Decisions {
  #trace;
  #pages = new Map();

  constructor(trace) {
    this.#trace = trace;
  }

  // Of one step, with its candidates; [] where none was recorded (the user named the memory). While a
  // text is being written its steps reach the trace a few at a time: null while one is not there.
  async of(step, signal) {
    const page = Math.floor(step / kStepsAtOnce);
    for (let ask = 1;; ++ask) {
      const found = (await this.#page(page, signal)).find((one) => one.step === step);
      if (found) return found.decisions || [];
      this.#pages.delete(page);
      if (ask === kAsks) return null;
      await new Promise((resolve) => setTimeout(resolve, kAskAgainMs));
      signal?.throwIfAborted();
    }
  }

  #page(page, signal) {
    if (!this.#pages.has(page)) {
      const asked = get(['traces', this.#trace], {from: page * kStepsAtOnce, steps: kStepsAtOnce,
        candidates: true}, {signal}).then((reply) => reply.shown);
      this.#pages.set(page, asked);
      asked.catch(() => this.#pages.delete(page));
    }
    return this.#pages.get(page);
  }
}

// The policy's probability where it says one; of the chosen it is known from its log-probability.
function probabilityOf(row, decision) {
  return row.probability ?? (row.memory === decision.chosen ? Math.exp(decision.log_prob) : null);
}

// Name and, under it, the probability as a bar and the way to another choice.
function candidateCell(decision, whatIf) {
  return (row) => {
    const chosen = row.memory === decision.chosen;
    const probability = probabilityOf(row, decision);
    const bar = probability === null ? null : h('meter', {min: 0, max: 1, 'aria-hidden': 'true'});
    if (bar) bar.value = probability;
    return h('div', {class: 'candidate'}, memoryTag(row.memory), h('div', {class: 'row'}, bar,
        chosen ? h('strong', {class: 'chosen'}, 'chosen')
        : whatIf ? h('button', {type: 'button', class: 'quiet', 'aria-label': `What if ${row.memory}`,
          on: {click: () => whatIf(row.memory)}}, 'what if') : null));
  };
}

export function candidatesTable(decision, whatIf) {
  const similarity = (row, value) => row.memory === 'base' ? kAbsent : real(value);
  const columns = [
    {title: 'Candidate', grow: true, cell: candidateCell(decision, whatIf)},
    {title: 'Probab.', num: true, cell: (row) => percent(probabilityOf(row, decision), 1)},
    {title: 'Score', num: true, cell: (row) => real(row.score, 3)},
    {title: 'Key', num: true, cell: (row) => similarity(row, row.best_key)},
    {title: 'Mean', num: true, cell: (row) => similarity(row, row.mean_key)},
  ];
  const rows = [...decision.candidates || []].sort((a, b) => b.score - a.score);
  return h('div', {class: 'scroll-x'}, table({label: 'Candidates', columns, rows}));
}

// The panel beside a text: show(step, decisions, whatIf) with `decisions` a Decisions or null.
export function stepPanel(signal) {
  const body = h('div', {}, h('p', {class: 'dim'},
      'Point at a stretch of the text, or move to it with Tab and the arrow keys: here is what the ' +
      'step chose among.'));
  const node = h('aside', {class: 'panel step-panel', 'aria-label': 'Step'}, body);
  let asked = null, shown = null;

  async function show(step, decisions, whatIf) {
    if (shown === step) return;
    shown = step;
    asked?.abort();
    asked = new AbortController();
    const mine = asked;
    const place = h('div', {}, decisions ? loading('Reading the candidates') : null);
    replace(body, h('h2', {}, `Step ${step.step}`), memoryTag(memoryOf(step)),
        h('p', {class: 'dim'}, reasonOf(step)),
        facts([['Entropy', `${real(step.entropy)} nats`], ['Surprise', `${real(step.surprise)} nats`],
          ['Gain', step.gain === undefined ? null : `${signed(step.gain, 3)} nats`],
          ['Swap', micros(step.swap_us)], ['Selection', micros(step.select_us)],
          ['Tokens', String(step.tokens?.length ?? 0)]]), place);
    if (!decisions) return;
    try {
      await new Promise((resolve) => setTimeout(resolve, 60));  // only where the pointer rests
      const found = mine.signal.aborted ? [] : await decisions.of(step.step, signal);
      if (mine.signal.aborted) return;
      if (found === null) shown = null;  // looked at again, it is asked for again
      const said = (text) => h('p', {class: 'dim'}, text);
      replace(place, found === null ? said('The trace does not hold this step yet. Look again soon.')
        : found.length === 0 ? said('No decision was recorded: nothing was chosen in this step.')
        : found.map((decision) => [
          h('h3', {}, found.length > 1 ? `Candidates of slot ${decision.slot}` : 'Candidates'),
          candidatesTable(decision, whatIf && ((memory) => whatIf(step, memory, decision.slot)))]));
    } catch (error) {
      if (!isAbort(error) && !mine.signal.aborted) {
        shown = null;
        replace(place, errorBox(error));
      }
    }
  }
  return {node, show};
}

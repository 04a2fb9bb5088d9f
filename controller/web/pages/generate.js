// A prompt, and the text that comes, each stretch in the colour of the memory that wrote it.
//
// The generation belongs to the tab, not to the page: it goes on while another page is looked at, and
// "Stop" (or closing the tab) leaves the connection, which cancels it.
import {events, get, isAbort, post} from '../lib/api.js';
import {memoryHref, memoryTag} from '../lib/colours.js';
import {announce, debounced, h, replace} from '../lib/dom.js';
import {integer, plural, real, seconds} from '../lib/format.js';
import {Decisions, legend, memoryOf, stepPanel, StretchView} from '../lib/steps.js';
import {act, emptyState, errorBox, facts, field, numberField, select} from '../lib/widgets.js';

export const title = () => 'Generate';

const kSettings = {memory: 'auto', max_tokens: 128, step_tokens: 16, temperature: 0, top_k: 0,
  top_p: 1, seed: 1, kv: 'activated', select: 'sync', policy: '', namespaces: '', explore: false};

// What the page shows when one comes back to it.
const kept = {prompt: '', settings: {...kSettings}, run: null};

class Run extends EventTarget {
  constructor(prompt) {
    super();
    Object.assign(this, {prompt, steps: [], started: null, done: null, error: null,
      controller: new AbortController(), feedback: null});
  }

  get running() {
    return !this.done && !this.error;
  }

  stop() {
    this.controller.abort();
  }

  async read(body) {
    try {
      for await (const event of events('POST', ['generate'], body, this.controller.signal)) {
        if (event.type === 'start') this.#started(event);
        else if (event.type === 'step') this.steps.push(event);
        else if (event.type === 'done') this.done = event;
        this.dispatchEvent(new CustomEvent(event.type, {detail: event}));
      }
      if (!this.done) throw new Error('The text ended before it was complete.');
    } catch (error) {
      if (this.done) return;
      if (isAbort(error)) this.done = {type: 'done', finish: 'stopped'};
      else this.error = error;
      this.dispatchEvent(new CustomEvent('done'));
    }
  }

  #started(event) {
    this.started = event;
    this.decisions = event.trace ? new Decisions(event.trace) : null;
    // The session's number is the trace's name in hex; as text it keeps every digit.
    this.session = event.trace ? BigInt(`0x${event.trace}`).toString() : String(event.session);
  }
}

function argumentsOf(settings, prompt) {
  const body = {prompt};
  for (const [name, standard] of Object.entries(kSettings)) {
    if (name === 'namespaces' || settings[name] === standard) continue;
    body[name] = settings[name];
  }
  const namespaces = settings.namespaces.split(/[\s,]+/).filter(Boolean);
  if (namespaces.length) body.namespaces = namespaces;
  return body;
}

// --- the form ----------------------------------------------------------------------------------

function memoryField(settings, signal) {
  const list = h('datalist', {id: 'memories'});
  const offer = (names) => replace(list, ['auto', 'base', ...names]
      .map((name) => h('option', {value: name})));
  const suggest = debounced(200, async (q) => {
    try {
      const page = await get(['memories'], {q: q === 'auto' ? '' : q, limit: 20}, {signal});
      offer(page.memories.map((m) => `${m.namespace}/${m.id}`));
    } catch {
      // Suggestions only: the field takes any name.
    }
  }, signal);
  const input = h('input', {type: 'text', list: 'memories', value: settings.memory,
    autocomplete: 'off', spellcheck: 'false', 'aria-label': 'Memory', on: {input: () => {
      settings.memory = input.value.trim() || 'auto';
      suggest(input.value);
    }, focus: () => suggest(input.value)}});
  offer([]);
  return [field('Memory', input, 'auto: chosen at each step; base: none; or a name'), list];
}

function settingsFields(settings) {
  const number = (name, attributes) => {
    const input = numberField(settings[name], {...attributes, on: {input: () => {
      settings[name] = input.value === '' ? kSettings[name] : Number(input.value);
    }}});
    return input;
  };
  const text = (name, attributes = {}) => {
    const input = h('input', {type: 'text', value: settings[name], autocomplete: 'off',
      ...attributes, on: {input: () => {
        settings[name] = input.value.trim();
      }}});
    return input;
  };
  const choice = (name, options) => {
    const input = select(options, settings[name], {on: {change: () => {
      settings[name] = input.value;
    }}});
    return input;
  };
  const explore = h('input', {type: 'checkbox', checked: settings.explore, on: {change: () => {
    settings.explore = explore.checked;
  }}});
  return h('details', {}, h('summary', {}, 'Settings'), h('div', {class: 'columns'},
      field('Tokens', number('max_tokens', {min: 1})),
      field('Tokens a step', number('step_tokens', {min: 1})),
      field('Temperature', number('temperature', {min: 0, step: 'any'})),
      field('Top k', number('top_k', {min: 0})),
      field('Top p', number('top_p', {min: 0, max: 1, step: 'any'})),
      field('Seed', number('seed', {min: 0})),
      field('Cache at a swap', choice('kv', ['activated', 'recompute'])),
      field('Selection', choice('select', ['sync', 'async'])),
      field('Policy', text('policy', {placeholder: "the controller's"})),
      field('Namespaces', text('namespaces', {placeholder: 'default'})),
      field('Explore: draw choices', explore)));
}

// --- the page ----------------------------------------------------------------------------------

function feedbackButtons(run, session) {
  const place = h('div', {role: 'status'});
  const give = (value) => (event) => act(event.target, place, async () => {
    const reply = await post(['policy', 'feedback'], {session: run.session, value});
    run.feedback = value;
    replace(place, `Thank you: ${plural(reply.steps ?? 0, 'step')} judged.`);
  });
  const learning = session.learning;
  return h('div', {class: 'row feedback', role: 'group', 'aria-label': 'Feedback'},
      h('span', {class: 'dim'}, learning ? 'Was it right?'
        : 'Feedback needs a controller that learns (--learn-online).'),
      [['Good', 1], ['So-so', 0], ['Bad', -1]].map(([name, value]) =>
        h('button', {type: 'button', disabled: !learning, on: {click: give(value)}}, name)), place);
}

export async function show(root, {query, signal, session}) {
  const {settings} = kept;
  if (query.has('memory')) settings.memory = query.get('memory');
  const prompt = h('textarea', {rows: 4, 'aria-label': 'Prompt', dir: 'auto', 'data-slash': true,
    placeholder: 'What the model continues. Ctrl+Enter starts, Escape stops.', value: kept.prompt});
  const go = h('button', {type: 'submit', class: 'primary'}, 'Generate');
  const stop = h('button', {type: 'button', disabled: true, on: {click: () => kept.run?.stop()}},
      'Stop');
  const out = h('div', {class: 'output'});
  const panel = stepPanel(signal);
  let leave = () => {};

  function showRun(run) {
    leave();
    const watching = new AbortController();
    leave = () => watching.abort();
    const view = new StretchView({label: 'Generated text, by step', onStep: (step) => {
      view.mark(step.step);
      panel.show(step, run.decisions, run.started?.trace && whatIf);
    }});
    const whatIf = (step, memory, slot) => {
      location.hash = `#/trace/${run.started.trace}?` +
          new URLSearchParams({step: step.step, memory, slot});
    };
    const line = h('p', {class: 'dim'});
    const legends = h('div');
    const end = h('div');
    replace(out, line, h('div', {class: 'panel text'},
        h('span', {class: 'prompt', dir: 'auto'}, run.prompt), view.node), legends, end);

    const onStep = (step) => {
      view.append(step);
      replace(legends, legend(run.steps));
      const tokens = run.steps.reduce((n, s) => n + (s.tokens?.length ?? 0), 0);
      line.textContent = `${plural(run.steps.length, 'step')}, ${plural(tokens, 'token')}`;
    };
    const onEnd = () => {
      go.disabled = false;
      stop.disabled = true;
      if (run.error) replace(end, errorBox(run.error));
      else replace(end, summary(run), run.session ? feedbackButtons(run, session) : null);
      announce(run.error ? 'The text failed.' : `The text is complete: ${line.textContent}.`);
    };
    run.steps.forEach(onStep);
    if (!run.running) {
      onEnd();
      return;
    }
    go.disabled = true;
    stop.disabled = false;
    line.textContent = 'Reading the prompt…';
    const {signal: watched} = watching;
    run.addEventListener('step', ({detail}) => onStep(detail), {signal: watched});
    run.addEventListener('done', onEnd, {signal: watched});
  }

  function summary(run) {
    const {done} = run;
    const tokens = Array.isArray(done.tokens) ? done.tokens.length : done.tokens;
    const swaps = run.steps.filter((step, i) =>
      i > 0 && memoryOf(step) !== memoryOf(run.steps[i - 1])).length;
    const stored = done.write_back;
    return [facts([
      ['Ended by', done.finish],
      ['Speed', done.decode_seconds
        ? `${real(tokens / done.decode_seconds, 1)} tokens/s` : null],
      ['Prompt', done.prompt_tokens === undefined ? null
        : `${plural(done.prompt_tokens, 'token')}, ${seconds(done.prefill_seconds)}`],
      ['Swaps', integer(swaps)],
      ['Policy', run.started?.policy || null],
      ['Choices too late', done.missed_deadlines || null],
      ['Loads that failed', done.load_failures || null],
      ['Written back', stored ? memoryTag(String(stored)) : null],
    ]),
    run.started?.trace ? h('p', {}, h('a', {href: `#/trace/${run.started.trace}`},
        'Open its trace'), h('span', {class: 'dim'}, ': timeline, replay, what if')) : null];
  }

  function start(event) {
    event?.preventDefault();
    if (kept.run?.running) return;
    const text = prompt.value;
    if (!text) {
      prompt.focus();
      return;
    }
    const run = kept.run = new Run(text);
    showRun(run);
    run.read(argumentsOf(settings, text));
  }

  prompt.addEventListener('input', () => {
    kept.prompt = prompt.value;
  });
  prompt.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) start(event);
  });
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && !document.querySelector('dialog[open]')) kept.run?.stop();
  }, {signal});
  signal.addEventListener('abort', () => leave());

  const named = settings.memory !== 'auto' && settings.memory !== 'base';
  replace(root, h('div', {class: 'toolbar'}, h('h1', {}, 'Generate')),
      h('div', {class: 'beside'},
          h('div', {class: 'stack'},
              h('form', {class: 'panel', on: {submit: start}}, prompt,
                  h('div', {class: 'row prompt-row'}, memoryField(settings, signal),
                      h('div', {class: 'row push'}, stop, go)),
                  settingsFields(settings)),
              out),
          panel.node));
  if (kept.run) {
    showRun(kept.run);
  } else {
    replace(out, emptyState('Nothing is written yet',
        'Write a prompt above. At each step the controller chooses which memory stands in, and the ' +
        'text shows whose it is. Without memories the model speaks for itself.',
        h('a', {class: 'button', href: named ? memoryHref(settings.memory) : '#/bank'},
            named ? 'Look at the memory' : 'See the memories')));
  }
  return {};
}

// The policy: which one chooses, how it learned and learns, how it compares with the other selectors,
// where it goes wrong, and training from a gain table.
import {get, isAbort, post} from '../lib/api.js';
import {chart} from '../lib/charts.js';
import {announce, h, repeated, replace} from '../lib/dom.js';
import {integer, kAbsent, percent, plural, real, signed, time} from '../lib/format.js';
import {act, confirm, emptyState, errorBox, facts, field, fill, loading, numberField, progress, section,
  select, table} from '../lib/widgets.js';

export const title = () => 'Policy';

const kRefreshMs = 2000;
const kLoss = 0.005;  // nats a token: a lead under minus this counts as losing

const short = (digest) => h('span', {class: 'mono', title: digest}, digest.slice(0, 12));

// --- the policy that chooses -------------------------------------------------------------------

function policyView({policy, number}, askToLoad, askToUnload) {
  if (!policy) {
    return emptyState('No learned policy', 'The controller follows a rule: nearest key. Train a policy ' +
        'from a gain table below, or load one that memslot train made.',
    h('button', {type: 'button', on: {click: askToLoad}}, 'Load a file'));
  }
  return [facts([
    ['Policy', short(policy.digest)], ['Version', integer(number)], ['Updates', integer(policy.update)],
    ['Layer', policy.layer < 0 ? 'any' : integer(policy.layer)], ['Candidates', integer(policy.candidates)],
    ['Window', plural(policy.window_tokens, 'token')],
    ['Price of a swap', `${real(policy.swap_cost, 3)} nats`],
    ['Generic gain', `${real(policy.generic_gain, 3)} nats`],
    ...Object.entries(policy.notes || {}).map(([name, value]) => [name, h('bdi', {}, String(value))]),
  ]), h('button', {type: 'button', class: 'quiet', on: {click: askToUnload}}, 'Unload the policy')];
}

function learningView(learning) {
  if (!learning) {
    return h('p', {class: 'dim'}, 'It does not learn from live sessions: the controller runs without ' +
        '--learn-online.');
  }
  const {guard} = learning;
  return [facts([
    ['Mean reward', `${real(learning.mean_reward, 3)} nats`],
    ['Entropy', `${real(learning.entropy, 3)} nats`],
    ['Episodes', integer(learning.episodes)], ['Steps', integer(learning.steps)],
    ['Updates', integer(learning.updates)], ['Published', integer(learning.snapshots)],
    ['Taken back', integer(learning.reverts)], ['Refused', integer(learning.refused)],
    ['Waiting', integer(learning.queued)], ['Dropped', learning.dropped || null],
  ]),
  guard ? facts([
    ['Guard: acting', real(guard.acting, 3)], ['the other', real(guard.other, 3)],
    ['Standard error', real(guard.standard_error, 3)],
    ['Steps judged', `${integer(guard.steps)}, worth ${integer(Math.round(guard.effective_steps))}`],
    ['Hardly ever tried', percent(guard.unjudged)],
  ]) : null];
}

function liveChart(live, signal) {
  const points = (name) => live.filter((p) => p[name] !== undefined && p[name] !== null)
      .map((p) => ({x: p.unix_ms, y: p[name]}));
  const series = (rows) => {
    live = rows;
    return [['mean reward', 'mean_reward'], ['entropy', 'entropy'], ['guard: acting', 'acting'],
      ['guard: the other', 'other']].map(([name, key]) => ({name, type: 'line', points: points(key)}))
        .filter((s) => s.points.length);
  };
  const made = chart({caption: 'Live: reward and entropy of recent episodes, and what the guard makes of ' +
        'the acting and the new policy (nats a token)', series: series(live),
  x: {name: 'time', format: (t) => time(t).slice(11)}, y: {}}, signal);
  return {node: made.node, update: (rows) => made.update(series(rows))};
}

// --- training ----------------------------------------------------------------------------------

const looks = (run) => run.rows.filter((row) => row.type === 'look');

function runSeries(run) {
  const of = (pick) => looks(run).map((row) => ({x: row.update, y: pick(row)}))
      .filter((p) => p.y !== undefined && p.y !== null);
  const references = run.rows.find((row) => row.type === 'start')?.references ?? {};
  const last = Math.max(1, ...looks(run).map((row) => row.update));
  return {
    gain: [{name: 'validation gain', type: 'line', points: of((r) => r.validation?.mean_gain)},
      {name: 'reward of a step', type: 'line', points: of((r) => r.reward)},
      ...Object.entries(references).map(([name, y]) => ({name, type: 'line',
        points: [{x: 0, y}, {x: last, y}]}))],
    entropy: [{name: 'entropy', type: 'line', points: of((r) => r.entropy)},
      {name: 'loss', type: 'line', points: of((r) => r.loss)}],
  };
}

function runView(run, signal) {
  const {gain, entropy} = runSeries(run);
  const end = run.rows.find((row) => row.type === 'end');
  const charts = {
    gain: chart({caption: `${run.run}: net gain on validation against the oracles (nats a token)`,
      series: gain, x: {name: 'update'}, y: {}}, signal),
    entropy: chart({caption: 'Entropy of the choices (nats) and loss', size: 'small', series: entropy,
      x: {name: 'update'}, y: {}}, signal),
  };
  return {node: h('div', {}, charts.gain.node, charts.entropy.node,
      end ? h('p', {class: 'dim'}, `Ended by ${end.ended} after ${plural(end.updates, 'update')}; best ` +
        `${real(end.best_gain, 3)} at update ${end.best_update}.`) : null),
  update(next) {
    const series = runSeries(next);
    charts.gain.update(series.gain);
    charts.entropy.update(series.entropy);
  }};
}

function runsTable(training, curves, {show, stop, use}) {
  const all = (run) => curves.get(run.run)?.rows.find((r) => r.type === 'start')?.options?.updates ?? 0;
  const kinds = {done: 'good', failed: 'bad', running: 'warn'};
  return h('div', {class: 'scroll-x'}, table({label: 'Trainings', rows: training.runs, columns: [
    {title: 'Run', cell: (r) => h('button', {type: 'button', class: 'quiet', on: {
      click: () => show(r.run)}}, h('bdi', {}, r.run))},
    {title: 'Table', wide: 1, cell: (r) => h('bdi', {}, r.table)},
    {title: 'State', cell: (r) => h('span', {class: kinds[r.state] ?? '', title: r.message}, r.state)},
    {title: 'Progress', grow: true, cell: (r) => r.message
      ? h('span', {class: r.state === 'failed' ? 'bad' : 'dim', dir: 'auto'}, r.message)
      : [progress(`Updates of ${r.run}`, r.update, r.state === 'running' ? all(r) : r.update || 1),
        h('span', {class: 'dim'}, plural(r.update, 'update'))]},
    {title: 'Started', num: true, wide: 2, cell: (r) => time(r.started_unix_ms)},
    {title: '', cell: (r) => r.state === 'running'
      ? h('button', {type: 'button', class: 'quiet', 'aria-label': `Stop ${r.run}`, on: {
        click: () => stop(r)}}, 'stop')
      : r.policy ? h('button', {type: 'button', class: 'quiet', 'aria-label': `Load ${r.run}`, on: {
        click: () => use(r)}}, 'load') : null},
  ]}));
}

function trainingForm(training, started, askForTable) {
  const add = h('button', {type: 'button', on: {click: askForTable}}, 'Add a gain table');
  if (!training.tables.length) {
    return emptyState('No gain table', 'A gain table says what every memory would have been worth on a ' +
        `text. Make one with "memslot gains TEXT FILE"; it is kept in ${training.folder}.`, add);
  }
  const names = {tableName: select(training.tables, training.tables[0]),
    run: h('input', {type: 'text', placeholder: 'made up', autocomplete: 'off', spellcheck: 'false'}),
    seed: numberField(1, {min: 0}), updates: numberField(200, {min: 1}),
    baseline: select(['rloo', 'value', 'none'], 'rloo')};
  const place = h('div');
  const go = h('button', {type: 'submit', class: 'primary'}, 'Train');
  return h('form', {on: {submit: async (event) => {
    event.preventDefault();
    const reply = await act(go, place, () => {
      const body = {table: names.tableName.value, options: {seed: Number(names.seed.value),
        updates: Number(names.updates.value), baseline: names.baseline.value}};
      if (names.run.value.trim()) body.run = names.run.value.trim();
      return post(['policy', 'training'], body);
    });
    if (reply) started(reply.run);
  }}}, h('div', {class: 'columns'}, field('Gain table', names.tableName, training.folder),
      field('Name of the run', names.run), field('Updates', names.updates), field('Seed', names.seed),
      field('Baseline', names.baseline)), place, h('div', {class: 'row'}, go, add));
}

// --- comparison --------------------------------------------------------------------------------

const kSelectorTitles = {policy: 'policy', base: 'base', random: 'random', nearest: 'nearest key',
  wise: 'WISE rule', audition: 'audition', lagged_oracle: 'lagged oracle', oracle: 'oracle'};

function selectorsTable(selectors) {
  const rows = Object.entries(selectors).sort((a, b) => b[1].mean_gain - a[1].mean_gain);
  return h('div', {class: 'scroll-x'}, table({label: 'Selectors', rows,
    rowClass: ([name]) => name === 'policy' ? 'selected' : '', columns: [
      {title: 'Selector', cell: ([name]) => kSelectorTitles[name] ?? name},
      {title: 'Net gain', num: true, cell: ([, f]) => signed(f.mean_gain, 3)},
      {title: '95 %', num: true, cell: ([, f]) => f.ci95
        ? h('span', {class: 'dim'}, `${real(f.ci95[0])} to ${real(f.ci95[1])}`) : kAbsent},
      {title: 'Regret', num: true, cell: ([, f]) => real(f.regret, 3)},
      {title: 'Accuracy', num: true, cell: ([, f]) => percent(f.accuracy)},
      {title: 'Abstention', num: true, cell: ([, f]) => percent(f.abstention)},
      {title: 'Swaps / 100', num: true, cell: ([, f]) => real(f.swaps_per_100, 1)},
    ]}));
}

// Every setting of a report that was evaluated, with the words for it.
function settingsOf(report) {
  return [['switching streams', report], ['async', report.modes?.async],
    ['activated', report.modes?.activated], ['prompt', report.prompt], ['continuation', report.continuation], ['other texts', report.control]]
      .filter(([, part]) => part?.selectors?.policy);
}

// What a learned policy should beat; the oracles know the future and are left out.
const kRivals = ['nearest', 'base', 'wise', 'audition', 'random'];

function leadCell(rival) {
  return ([, part]) => {
    const figures = part.selectors[rival];
    if (!figures) return kAbsent;
    const lead = part.selectors.policy.mean_gain - figures.mean_gain;
    const [low, high] = figures.policy_lead_ci95 ?? [lead, lead];
    const sure = low > 0 ? 'good' : high < 0 ? 'bad' : 'dim';
    return h('span', {class: `diverging ${sure}`, title: `95 %: ${real(low, 3)} to ${real(high, 3)}`},
        lead < -kLoss ? '▼ ' : '', signed(lead, 3));
  };
}

function wrongView(report) {
  const settings = settingsOf(report);
  const targets = report.targets ?? [];
  return [
    h('p', {class: 'dim'}, 'Lead of the policy in net gain (nats a token); ▼ where the other is better, ' +
        'grey where 95 % of the draws hold both signs.'),
    h('div', {class: 'scroll-x'}, table({label: 'Lead of the policy', rows: settings, columns: [
      {title: 'Setting', cell: ([name]) => name},
      ...kRivals.map((rival) => ({title: kSelectorTitles[rival], num: true, cell: leadCell(rival)})),
      {title: 'below the oracle', num: true, cell: ([, part]) => real(part.selectors.policy.regret, 3)},
      {title: 'abstains', num: true, cell: ([, part]) => percent(part.selectors.policy.abstention)},
      {title: 'harm to prose', num: true, cell: ([, part]) =>
        `${signed(100 * part.selectors.policy.prose_nll, 2)} %`},
    ]})),
    targets.length ? [h('h3', {}, 'Targets'), h('ul', {class: 'plain'}, targets.map((t) =>
      h('li', {class: t.met ? '' : 'bad'}, t.met ? '✓ ' : '✕ ', t.name, ': ', real(t.figure, 3), ', ',
          t.at_least ? 'at least ' : 'at most ', real(t.bound, 3))))] : null,
  ];
}

function comparisonsView(comparisons) {
  if (!comparisons.length) {
    return emptyState('Nothing is compared yet', 'Each training ends by holding its policy against rules and ' +
        'oracles on texts that it has not seen; so does "memslot eval TABLE POLICY".');
  }
  const place = h('div');
  const show = (name) => {
    const {report} = comparisons.find((c) => c.name === name);
    replace(place, h('h3', {}, 'Against the other selectors'), selectorsTable(report.selectors),
        h('h3', {}, 'Where it goes wrong'), wrongView(report));
  };
  const names = comparisons.map((c) => c.name);
  const choice = select(names, names.at(-1), {'aria-label': 'Comparison', on: {
    change: () => show(choice.value)}});
  show(choice.value);
  return [h('div', {class: 'row'}, choice), place];
}

// --- the page ----------------------------------------------------------------------------------

export async function show(root, {signal}) {
  replace(root, loading('Reading the policy'));
  const policyPlace = h('div'), learningPlace = h('div'), livePlace = h('div');
  const trainPlace = h('div'), runsPlace = h('div'), runPlace = h('div');
  const drawn = new Map();  // place -> what it shows, as text
  const versions = h('div'), comparisons = h('div'), place = h('div');
  let live = null, shown = null, wanted = null, drawing = null, done = null;

  const upload = h('input', {type: 'file', class: 'unseen', 'aria-label': 'Policy file', tabindex: '-1'});
  const loadButton = h('button', {type: 'button', on: {click: () => upload.click()}}, 'Load a file');
  upload.addEventListener('change', () => act(loadButton, place, async () => {
    if (!upload.files.length) return;
    await post(['policy', 'load'], upload.files[0], {timeout: 0});
    upload.value = '';
    announce('The policy is loaded.');
    await readAll();
  }));

  const tableUpload = h('input', {type: 'file', class: 'unseen', 'aria-label': 'Gain table file', tabindex: '-1'});
  tableUpload.addEventListener('change', () => act(tableUpload, place, async () => {
    const [chosen] = tableUpload.files;
    if (!chosen) return;
    tableUpload.value = '';  // so that the same file can be chosen again
    // What a browser adds to the name of a second download is none of the controller's names.
    const name = chosen.name.replace(/[^A-Za-z0-9._-]+/g, '-').replace(/^[._-]+/, '');
    await post(['policy', 'training', 'tables'], chosen, {query: {name}, timeout: 0});
    announce('The gain table is there.');
    await refresh();
  }));

  const stop = (run) => confirm({title: 'Stop the training', verb: 'Stop', text: `${run.run} keeps what it ` +
      'has learned so far.', action: () => post(['policy', 'training', run.run, 'stop'])}).then(refresh);
  const use = async (run) => {
    const done = await confirm({title: 'Load the policy', verb: 'Load', danger: false,
      text: `The policy of ${run.run} chooses from the next session on. The one before stays in the list of ` +
          'versions.', action: () => post(['policy', 'training', run.run, 'load'])});
    if (done) await readAll();
  };

  const unload = async () => {
    const done = await confirm({title: 'Unload the policy', verb: 'Unload', danger: false,
      text: 'From the next session on nearest key chooses, unless the controller is told another rule. The policy ' +
          'stays in the list of versions.',
      action: () => post(['policy', 'unload'])});
    if (done) await readAll();
  };

  async function readAll() {
    await refresh();
    await readVersions();
  }

  function readComparisons() {
    return fill(comparisons, async () =>
      comparisonsView((await get(['policy', 'comparisons'], {}, {signal})).comparisons), signal);
  }

  function readVersions() {
    return fill(versions, async () => {
      const {policies} = await get(['policy', 'versions'], {}, {signal});
      if (!policies.length) return h('p', {class: 'dim'}, 'None was loaded yet.');
      return h('div', {class: 'scroll-x'}, table({label: 'Versions of the policy',
        rows: [...policies].reverse(), columns: [
          {title: 'Version', cell: (p) => integer(p.number)},
          {title: 'Policy', cell: (p) => p.digest ? short(p.digest) : 'none'},
          {title: 'Origin', cell: (p) => p.origin},
          {title: 'Updates', num: true, cell: (p) => integer(p.update)},
          {title: 'Time', num: true, cell: (p) => time(p.created_unix_ms)},
        ]}));
    }, signal);
  }

  function showRun(run) {
    if (!run) {
      replace(runPlace, h('p', {class: 'dim'}, 'Curves of a training stand here while it runs and after.'));
    } else if (shown?.name === run.run) {
      shown.view.update(run);
    } else {
      drawing?.abort();
      drawing = new AbortController();
      shown = {name: run.run, view: runView(run, AbortSignal.any([signal, drawing.signal]))};
      replace(runPlace, shown.view.node);
    }
  }

  // Only what changed is drawn again: a selection, or the focus, in the rest stays.
  function draw(place, data, make) {
    const text = JSON.stringify(data);
    if (drawn.get(place) === text) return;
    drawn.set(place, text);
    const focused = place.contains(document.activeElement) ? document.activeElement.ariaLabel : null;
    replace(place, make());
    if (focused) [...place.querySelectorAll('button')].find((b) => b.ariaLabel === focused)?.focus();
  }

  // A controller without a folder for trainings still has a policy to show.
  const optional = (asked, otherwise) => asked.catch((error) => {
    if (isAbort(error) || error.name === 'ConnectionError') throw error;
    return {...otherwise, error};
  });

  async function refresh() {
    const options = {signal};
    const [head, curves, training] = await Promise.all([get(['policy'], {}, options),
      optional(get(['policy', 'curves'], {}, options), {live: [], runs: []}),
      optional(get(['policy', 'training'], {}, options), {folder: '', tables: [], runs: []})]);
    draw(policyPlace, [head.policy, head.number], () => policyView(head, () => upload.click(), unload));
    draw(learningPlace, head.learning, () => learningView(head.learning));
    if (curves.live.length && !live) {
      live = liveChart(curves.live, signal);
      replace(livePlace, live.node);
    } else if (curves.live.length) {
      live.update(curves.live);
    }
    const byName = new Map(curves.runs.map((run) => [run.run, run]));
    draw(runsPlace, training.runs, () => training.runs.length
      ? runsTable(training, byName, {stop, use, show: (name) => {
        wanted = name;
        refresh().catch(() => {});
      }}) : null);
    // Each training that ends brings its own.
    const compared = training.runs.filter((run) => run.state === 'done').length;
    if (done !== null && compared > done) readComparisons();
    done = compared;
    draw(trainPlace, [training.folder, training.tables, training.error?.message], () => training.error
      ? errorBox(training.error) : trainingForm(training, (run) => {
        wanted = run;
        announce(`Training ${run} has begun.`);
        refresh().catch(() => {});
      }, () => tableUpload.click()));
    const running = training.runs.find((run) => run.state === 'running');
    showRun(byName.get(wanted ?? running?.run ?? training.runs.at(-1)?.run) ?? curves.runs.at(-1));
  }

  try {
    await refresh();
  } catch (error) {
    if (isAbort(error)) return {};
    replace(root, errorBox(error, () => show(root, {signal})));
    return {};
  }
  replace(root, h('div', {class: 'toolbar'}, h('h1', {}, 'Policy'),
      h('div', {class: 'row push'}, upload, tableUpload, loadButton)), place,
  h('div', {class: 'stack'},
      h('div', {class: 'two'}, section('What chooses', policyPlace),
          section('Learning from live sessions', learningPlace, livePlace)),
      section('Comparison', comparisons),
      h('div', {class: 'two'}, section('Training', trainPlace, runsPlace),
          section('Curves', runPlace)),
      section('Versions', versions)));
  readVersions();
  readComparisons();
  repeated(kRefreshMs, refresh, signal);
  return {refresh};
}

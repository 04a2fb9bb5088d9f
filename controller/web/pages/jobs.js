// Jobs of learning: what waits, what is being learned and how far, what came of it. The jobs that are
// under way are followed as they report; the list itself is read again every few seconds.
import {events, get, isAbort, post} from '../lib/api.js';
import {memoryHref, memoryTag} from '../lib/colours.js';
import {announce, h, repeated, replace} from '../lib/dom.js';
import {integer, oneLine, percent, real, time} from '../lib/format.js';
import {askToLearn} from '../lib/learn.js';
import {confirm, emptyState, errorBox, loading, progress, section, select, table}
    from '../lib/widgets.js';

export const title = () => 'Jobs';

const kListMs = 3000;
const kFollowed = 2;  // streams at once: a browser opens six connections to a host at most
const kStates = {queued: 'waits', leased: 'learning', done: 'done', failed: 'failed',
  cancelled: 'cancelled'};
const kActive = ['queued', 'leased'];

const isActive = (job) => kActive.includes(job.state);
const memoryName = (job) => `${job.namespace}/${job.id}`;

export async function show(root, {path, signal, session}) {
  root.classList.add('fills');
  const view = h('div', {class: 'scroller'}), place = h('div'), one = h('div');
  const news = new Map();      // job -> its last event
  const followed = new Map();  // job -> AbortController
  const cells = new Map();     // job -> the table cell with its progress
  let jobs = [], wanted = path[0] ?? null;

  function progressOf(job) {
    const event = news.get(job.job);
    if (job.state === 'queued') return h('span', {class: 'dim'}, job.waits || 'waits for its turn');
    if (job.state === 'failed') {
      return h('span', {class: 'bad', title: job.message, dir: 'auto'}, oneLine(job.message, 120));
    }
    if (job.state === 'done' && job.branch) return 'kept beside the head, which had moved';
    if (job.state !== 'leased') return oneLine(job.message, 120);
    if (!event?.steps) {
      return [progress('Progress', 0, 0), h('span', {class: 'dim'}, event?.phase ?? 'begins')];
    }
    return [progress(`Progress of ${memoryName(job)}`, event.step, event.steps),
      h('span', {class: 'dim'}, `${event.phase} ${integer(event.step)}/${integer(event.steps)}` +
        (event.loss ? `, loss ${real(event.loss)}` : '') +
        (event.recall ? `, recall ${percent(event.recall)}` : ''))];
  }

  function stateOf(job) {
    const kind = {done: 'good', failed: 'bad', queued: 'warn'}[job.state] ?? '';
    return h('span', {class: kind}, kStates[job.state] ?? job.state);
  }

  async function cancel(job) {
    await confirm({title: 'Cancel the job', verb: 'Cancel the job',
      text: `What was learned of ${memoryName(job)} so far is lost.`,
      action: () => post(['jobs', job.job, 'cancel'])});
    await load();
  }

  const columns = [
    {title: 'Memory', grow: true, cell: (job) => job.state === 'done' ? memoryTag(memoryName(job))
      : memoryTag(memoryName(job), {link: false})},
    {title: 'State', cell: stateOf},
    {title: 'Progress', grow: true, cell: (job) => {
      const cell = h('div', {}, progressOf(job));
      cells.set(job.job, cell);
      return cell;
    }},
    {title: 'Source', wide: 2, cell: (job) => h('bdi', {}, job.source)},
    {title: 'Attempts lost', num: true, wide: 3, cell: (job) =>
      integer((job.failed ?? 0) + (job.lost ?? 0))},
    {title: 'Created', num: true, wide: 1, cell: (job) => time(job.created_unix_ms)},
    {title: '', cell: (job) => isActive(job) ? h('button', {type: 'button', class: 'quiet',
      'aria-label': `Cancel ${memoryName(job)}`, on: {click: () => cancel(job)}}, 'cancel') : null},
  ];

  function draw() {
    cells.clear();
    const focused = document.activeElement?.getAttribute?.('aria-label');
    replace(view, jobs.length ? table({label: 'Jobs', columns, rows: jobs,
      rowClass: (job) => job.job === wanted ? 'selected' : ''})
      : emptyState('No jobs', 'A text that is learned becomes a job here, and then a memory.',
          h('button', {type: 'button', class: 'primary', on: {click: learn}}, 'Learn a text')));
    if (focused && !document.activeElement?.getAttribute('aria-label')) {
      [...view.querySelectorAll('button')].find((b) => b.getAttribute('aria-label') === focused)?.focus();
    }
    drawWanted();
  }

  // The job that one came for: what to do once it is done.
  function drawWanted() {
    const job = jobs.find((j) => j.job === wanted);
    if (!job) {
      replace(one);
      return;
    }
    const {stats} = news.get(wanted) ?? {};
    const name = encodeURIComponent(memoryName(job));
    replace(one, section(`Job ${wanted}`, h('div', {class: 'row'}, memoryTag(memoryName(job),
        {link: job.state === 'done'}), stateOf(job)), h('div', {}, progressOf(job)),
    stats ? h('p', {}, `NLL ${real(stats.nll_before)} → ${real(stats.nll_after)}, recall ` +
        percent(stats.recall)) : null,
    job.state === 'done' ? h('p', {class: 'row'},
        h('a', {class: 'button primary', href: `#/generate?memory=${name}`}, 'Generate with it'),
        h('a', {class: 'button', href: memoryHref(memoryName(job))}, 'Look at the memory')) : null));
  }

  async function follow(job) {
    const controller = new AbortController();
    followed.set(job.job, controller);
    try {
      const both = AbortSignal.any([signal, controller.signal]);
      for await (const event of events('GET', ['jobs', job.job, 'events'], undefined, both)) {
        news.set(job.job, event);
        if (event.type === 'learned') announce(`${event.memory} is learned.`);
        const now = jobs.find((j) => j.job === job.job);
        const cell = cells.get(job.job);
        if (now && cell) replace(cell, progressOf(now));
        if (job.job === wanted) drawWanted();
      }
    } catch (error) {
      if (isAbort(error)) return;  // an error of the job itself stands in the list
    } finally {
      // A stream that fails at once is not hurried.
      setTimeout(() => followed.delete(job.job), kListMs);
    }
    if (!signal.aborted) await load().catch(() => {});
  }

  async function load() {
    try {
      const page = await get(['jobs'], {state: state.value}, {signal});
      jobs = page.jobs;
      if (wanted && !jobs.some((j) => j.job === wanted)) {
        jobs = [(await get(['jobs', wanted], {}, {signal})).job, ...jobs];
      }
      more.textContent = page.left_off ? `${integer(page.left_off)} older ones are not shown` : '';
      draw();
      const urgency = (job) => 2 * (job.job === wanted) + (job.state === 'leased');
      const active = jobs.filter(isActive).sort((a, b) => urgency(b) - urgency(a));
      for (const job of active.slice(0, kFollowed)) {
        if (!followed.has(job.job) && followed.size < kFollowed) follow(job);
      }
    } catch (error) {
      if (isAbort(error)) return;
      if (error.code === 'not_found') wanted = null;
      replace(view, errorBox(error, load));
    }
  }

  async function learn() {
    const job = await askToLearn(session);
    if (!job) return;
    wanted = job;
    history.replaceState(null, '', `#/jobs/${encodeURIComponent(job)}`);
    await load();
  }

  const state = select([['', 'All states'], ...Object.entries(kStates)], '',
      {'aria-label': 'State', on: {change: () => load()}});
  const more = h('span', {class: 'dim'});
  replace(root, h('div', {class: 'toolbar'}, h('h1', {}, 'Jobs'), state, more,
      h('div', {class: 'row push'},
          h('button', {type: 'button', class: 'primary', on: {click: learn}}, 'Learn a text'))),
  place, one, view);
  replace(view, loading('Reading the jobs'));
  await load();
  repeated(kListMs, async () => {
    if (jobs.some(isActive)) await load();
  }, signal);
  return {refresh: load};
}

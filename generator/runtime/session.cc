#include "generator/runtime/session.h"

#include <algorithm>  // find_if, min, partial_sort
#include <chrono>
#include <cstring>  // memcpy
#include <numeric>  // iota

#include "shared/base/log.h"

namespace memslot {
namespace {

using SteadyClock = std::chrono::steady_clock;

double micros_since(SteadyClock::time_point start) {
  return std::chrono::duration<double, std::micro>(SteadyClock::now() - start).count();
}

Matrix no_rows() { return {}; }

std::vector<std::pair<std::int32_t, float>> best_of(std::span<const float> logits, int count) {
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto keep = std::min(order.size(), static_cast<std::size_t>(count));
  const auto at = [&](std::int32_t i) { return logits[static_cast<std::size_t>(i)]; };
  std::partial_sort(
      order.begin(), order.begin() + static_cast<std::ptrdiff_t>(keep), order.end(),
      [&](std::int32_t a, std::int32_t b) { return at(a) != at(b) ? at(a) > at(b) : a < b; });
  std::vector<std::pair<std::int32_t, float>> out;
  for (std::size_t i = 0; i < keep; ++i) out.emplace_back(order[i], at(order[i]));
  return out;
}

}  // namespace

Result<LogitsScratch> LogitsScratch::make(const Gpt& gpt) {
  LogitsScratch out;
  out.vocab_ = gpt.config().vocab;
  out.d_model_ = gpt.config().d_model;
  out.host_.reserve(static_cast<std::size_t>(out.vocab_));  // never moved: bytes() is any thread's
  MEMSLOT_TRY(out.logits_,
              gpt.backend().alloc(static_cast<std::size_t>(kRows * out.vocab_) * sizeof(float)));
  MEMSLOT_TRY(
      out.hidden_,
      gpt.backend().alloc(static_cast<std::size_t>(Gpt::kMaxRows * out.d_model_) * sizeof(float)));
  return out;
}

Matrix LogitsScratch::device(std::int64_t rows) const {
  MEMSLOT_CHECK(rows <= kRows);
  return {logits_.data(), DType::kF32, rows, vocab_, vocab_};
}

Matrix LogitsScratch::hidden() const {
  return {hidden_.data(), DType::kF32, Gpt::kMaxRows, d_model_, d_model_};
}

std::size_t LogitsScratch::bytes() const {
  return logits_.bytes() + hidden_.bytes() + host_.capacity() * sizeof(float);
}

Session::Session(Gpt& gpt, LogitsScratch& scratch, SessionSettings settings, KvCache kv)
    : gpt_(gpt),
      scratch_(scratch),
      settings_(std::move(settings)),
      kv_(std::move(kv)),
      observer_(gpt.backend()) {
  for (std::size_t i = 0; i < gpt.options().slot_layers.size(); ++i) slots_.emplace_back(gpt, i);
  slot_forward_ = [this](const SlotCall& call) {
    if (observing_ && call.slot == 0) observer_.add_rows(call);
    slots_[call.slot].forward(call);
  };
}

Session::~Session() { scratch_.kv_bytes() -= counted_kv_bytes_; }

void Session::count_kv() {
  scratch_.kv_bytes() += kv_.bytes() - counted_kv_bytes_;  // modulo 2^64: never negative in sum
  counted_kv_bytes_ = kv_.bytes();
}

Result<std::unique_ptr<Session>> Session::make(Gpt& gpt, LogitsScratch& scratch,
                                               SessionSettings settings) {
  MEMSLOT_TRY(check_sampling(settings.sampling));
  MEMSLOT_TRY(KvCache kv, gpt.make_kv(/*initial_capacity=*/256));
  return std::unique_ptr<Session>(new Session(gpt, scratch, std::move(settings), std::move(kv)));
}

std::int64_t Session::room() const {
  return gpt_.config().context - static_cast<std::int64_t>(tokens_.size());
}

Status Session::add_tokens(std::span<const std::int32_t> ids) {
  if (static_cast<std::int64_t>(ids.size()) > room()) {
    return invalid("text", "at most " + std::to_string(gpt_.config().context) + " tokens",
                   std::to_string(tokens_.size() + ids.size()) + " tokens");
  }
  for (const std::int32_t id : ids) {
    if (id < 0 || id >= gpt_.config().vocab) {
      return invalid("token id", "0 to " + std::to_string(gpt_.config().vocab - 1), id);
    }
  }
  tokens_.insert(tokens_.end(), ids.begin(), ids.end());
  return ok();
}

Status Session::continue_from(const Session& other) {
  MEMSLOT_CHECK(&gpt_ == &other.gpt_);
  if (settings_.kv != other.settings_.kv) {
    return mismatch("kv mode of the session to go on from", kv_mode_name(settings_.kv),
                    kv_mode_name(other.settings_.kv));
  }
  MEMSLOT_TRY(kv_.copy_from(other.kv_));
  count_kv();
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    MEMSLOT_TRY(slots_[i].copy_from(other.slots_[i]));
  }
  observer_ = other.observer_;
  prompt_ = other.prompt_;
  tokens_ = other.tokens_;
  logits_digest_ = other.logits_digest_;
  sampled_ = other.sampled_;
  set_aside_ = other.set_aside_;
  return ok();
}

std::vector<std::string> Session::memory_names() const {
  std::vector<std::string> names;
  for (const SessionSlot& slot : slots_) names.push_back(slot.digest());
  return names;
}

Status Session::forward(std::span<const std::int32_t> ids, Matrix hidden, bool last_only) {
  MEMSLOT_TRY(kv_.reserve(kv_.length() + static_cast<std::int64_t>(ids.size())));
  count_kv();
  Sequence sequence{ids, &kv_, &slot_forward_, memory_names()};
  observing_ = true;
  Status done = gpt_.forward({&sequence, 1}, hidden, last_only);
  observing_ = false;
  return done;
}

Result<bool> Session::prefill(std::int64_t limit) {
  const auto last = static_cast<std::int64_t>(tokens_.size()) - 1;
  const std::int64_t window = std::max<std::int64_t>(0, last - kPromptWindow);
  if (kv_.length() == 0) observer_.start(last - wire::kWindowTokens, /*boundary=*/last);
  // The window of the figures is a call of its own, so that only its rows need logits.
  const std::int64_t stop = kv_.length() < window ? window : last;
  const std::int64_t count = std::min({limit, stop - kv_.length(), Gpt::kMaxRows});
  if (count > 0) {
    const std::int64_t first = kv_.length();
    const std::span ids(tokens_.data() + first, static_cast<std::size_t>(count));
    const bool scored = settings_.figures && first >= window;
    MEMSLOT_TRY(forward(ids, scored ? scratch_.hidden().slice_rows(0, count) : no_rows(), !scored));
    if (scored) {
      MEMSLOT_TRY(score_rows(first + 1, count, nullptr));
    }
  }
  if (kv_.length() < last) return false;
  prompt_ = observer_.summary();
  return true;
}

Status Session::score_rows(std::int64_t first_target, std::int64_t rows, StepOutput* out) {
  for (std::int64_t done = 0; done < rows; done += LogitsScratch::kRows) {
    const std::int64_t count = std::min(LogitsScratch::kRows, rows - done);
    const Matrix logits = scratch_.device(count);
    gpt_.logits(scratch_.hidden().slice_rows(done, count), logits);
    const std::span targets(tokens_.data() + first_target + done, static_cast<std::size_t>(count));
    std::vector<float> nll(targets.size()), entropy(targets.size());
    std::vector<std::int32_t> best(targets.size());
    gpt_.backend().token_loss(logits, targets, nll.data(), entropy.data(), best.data());
    for (std::size_t i = 0; i < targets.size(); ++i) {
      observer_.add_token(static_cast<double>(entropy[i]), static_cast<double>(nll[i]));
      if (out == nullptr) continue;
      out->tokens.push_back({targets[i], -nll[i], best[i] == targets[i], {}});
      if (settings_.top_logits == 0 && !settings_.digest_logits) continue;
      std::vector<float>& row = scratch_.host();
      row.resize(static_cast<std::size_t>(logits.cols));
      MEMSLOT_TRY(gpt_.backend().download(std::as_writable_bytes(std::span(row)),
                                          logits.slice_rows(static_cast<std::int64_t>(i), 1).data));
      if (settings_.top_logits > 0) out->tokens.back().top = best_of(row, settings_.top_logits);
      if (settings_.digest_logits) digest(row);
    }
  }
  return ok();
}

void Session::digest(std::span<const float> logits) {
  const Xxh128 row = xxh128(std::as_bytes(logits));
  const std::uint64_t joined[4] = {logits_digest_.low, logits_digest_.high, row.low, row.high};
  logits_digest_ = xxh128(std::as_bytes(std::span(joined)));
  const std::uint64_t step[3] = {step_digest_, row.low, row.high};
  step_digest_ = xxh3_64(std::as_bytes(std::span(step)));
}

void Session::set_aside(std::size_t slot) {
  const auto& active = slots_[slot].active();
  if (settings_.kv != wire::KvMode::kActivated || active == nullptr ||
      !is_stateful(active->kind())) {
    return;
  }
  auto state = slots_[slot].snapshot();
  MEMSLOT_CHECK(state.has_value());
  if (set_aside_.size() >= kMaxSetAside) {
    log::warn("slot {}: the state of memory {} is dropped: more than {} are set aside",
              set_aside_.front().slot, set_aside_.front().memory.hex(), kMaxSetAside);
    set_aside_.erase(set_aside_.begin());
  }
  set_aside_.push_back({slot, active->ref(), active->sha256(),
                        std::make_shared<const MemoryPayload>(std::move(state).value())});
}

void Session::bring_back(std::size_t slot) {
  const auto& active = slots_[slot].active();
  if (active == nullptr) return;
  const auto found = std::find_if(set_aside_.begin(), set_aside_.end(), [&](const SetAside& one) {
    return one.slot == slot && one.ref.ns == active->ref().ns && one.ref.id == active->ref().id &&
           one.memory == active->sha256();
  });
  if (found == set_aside_.end()) return;
  const Status restored = slots_[slot].restore(*found->state);
  MEMSLOT_CHECK(restored.has_value());
  set_aside_.erase(found);
}

Result<SwapOutcome> Session::activate(std::span<const SlotChange> changes) {
  SwapOutcome out;
  const auto start = SteadyClock::now();
  std::size_t lowest = slots_.size();
  for (const SlotChange& change : changes) {
    MEMSLOT_CHECK(change.slot < slots_.size());
    if (slots_[change.slot].active() == change.memory) continue;
    set_aside(change.slot);
    slots_[change.slot].activate(change.memory);
    bring_back(change.slot);
    lowest = std::min(lowest, change.slot);
  }
  out.changed = lowest < slots_.size();
  out.swap_us = micros_since(start);
  if (!out.changed || settings_.kv != wire::KvMode::kRecompute || kv_.length() == 0) return out;

  const auto again = SteadyClock::now();
  for (std::size_t i = lowest; i < slots_.size(); ++i) {
    const auto active = slots_[i].active();
    if (active != nullptr && is_stateful(active->kind())) slots_[i].activate(active);
  }
  Sequence sequence{{}, &kv_, &slot_forward_, memory_names()};
  MEMSLOT_TRY(gpt_.recompute(sequence, lowest, no_rows()));
  kv_.relabel_all(memory_names());
  out.recomputed = kv_.length();
  out.recompute_us = micros_since(again);
  return out;
}

Result<std::span<const float>> Session::next_logits() {
  const Matrix hidden = scratch_.hidden().slice_rows(0, 1);
  MEMSLOT_TRY(forward(std::span(tokens_).last(1), hidden, /*last_only=*/true));
  const Matrix logits = scratch_.device(1);
  gpt_.logits(hidden, logits);
  std::vector<float>& host = scratch_.host();
  host.resize(static_cast<std::size_t>(logits.cols));
  MEMSLOT_TRY(gpt_.backend().download(std::as_writable_bytes(std::span(host)), logits.data));
  if (settings_.digest_logits) digest(host);
  return std::span<const float>(host);
}

Result<StepOutput> Session::write(int count, const OnToken& on_token) {
  StepOutput out;
  step_digest_ = 0;
  observer_.start(kv_.length(), kv_.length());
  MEMSLOT_CHECK(!tokens_.empty() && kv_.length() + 1 == static_cast<std::int64_t>(tokens_.size()));
  for (int i = 0; i < count && room() > 0; ++i) {
    MEMSLOT_TRY(const std::span<const float> logits, next_logits());
    MEMSLOT_TRY(const Sampled next, sample(logits, settings_.sampling, /*stream=*/0, sampled_++));
    tokens_.push_back(next.token);
    observer_.add_token(next.entropy, -next.log_prob);
    out.tokens.push_back({next.token, static_cast<float>(next.log_prob), false, {}});
    if (settings_.top_logits > 0) {
      auto& top = out.tokens.back().top;
      top = best_of(logits, settings_.top_logits);
      const auto chosen = static_cast<double>(logits[static_cast<std::size_t>(next.token)]);
      for (auto& [id, value] : top) {
        value = static_cast<float>(static_cast<double>(value) - chosen + next.log_prob);
      }
    }
    if (!on_token(next.token)) {
      out.end = StepEnd::kEnded;
      break;
    }
  }
  if (room() == 0) out.end = StepEnd::kEnded;
  out.summary = observer_.summary();
  out.logits_xxh3 = step_digest_;
  return out;
}

Result<StepOutput> Session::read(int count) {
  StepOutput out;
  step_digest_ = 0;
  observer_.start(kv_.length(), kv_.length());
  const auto left = static_cast<std::int64_t>(tokens_.size()) - 1 - kv_.length();
  for (std::int64_t todo = std::min<std::int64_t>(count, left); todo > 0;) {
    const std::int64_t first = kv_.length();
    const std::int64_t rows = std::min(todo, Gpt::kMaxRows);
    const std::span ids(tokens_.data() + first, static_cast<std::size_t>(rows));
    MEMSLOT_TRY(forward(ids, scratch_.hidden().slice_rows(0, rows), /*last_only=*/false));
    MEMSLOT_TRY(score_rows(first + 1, rows, &out));
    todo -= rows;
  }
  if (kv_.length() + 1 >= static_cast<std::int64_t>(tokens_.size())) out.end = StepEnd::kEnded;
  out.summary = observer_.summary();
  out.logits_xxh3 = step_digest_;
  return out;
}

}  // namespace memslot

// What --help of each command says beside its options: how it works, and examples.
#include <CLI/CLI.hpp>
#include <algorithm>

#include "cli/commands.h"

namespace memslot::cli {
namespace {

struct Page {
  const char* command;  // "bank ls"
  const char* text;
};

constexpr Page kPages[] = {
    {"learn",
     "Each text becomes one source and one memory: it is cut into segments (--segments), and the "
     "memory\n"
     "learns to predict their next tokens while the model stays as it is. The job is kept by the\n"
     "controller: it survives the end of either process, and is done once. Without --kind an `mlp` "
     "is\n"
     "learned (a whole MLP, 5 MB for the default model); `lora` is a change of low rank (0.2 MB); "
     "`delta`\n"
     "reads the text into a state. Learning the same source again makes a new version.\n"
     "\n"
     "Examples:\n"
     "  memslot learn notes.txt                       # the memory notes-mlp\n"
     "  memslot learn --kind lora manuals/            # every *.txt of a folder\n"
     "  fortune | memslot learn - --source fortune --detach"},
    {"generate",
     "At every step of --step-tokens tokens the controller chooses which memory stands in (-m "
     "auto), unless\n"
     "one is named. `activated` keeps what was computed of the past when the memory changes; "
     "`recompute`\n"
     "computes it again, as if the new memory had been there from the beginning. `async` lets a "
     "step run\n"
     "while the next one is chosen. The same prompt, seed and choices give the same text, bit for "
     "bit.\n"
     "\n"
     "Examples:\n"
     "  memslot generate --stream 'The harbour master'         # colours show which memory speaks\n"
     "  memslot generate -m notes-mlp@2 --seed 7 --temperature 0.8 'Dear Sir'\n"
     "  memslot --json generate -m base --prompt-file prompt.txt"},
    {"score",
     "Natural log-probability of every token after the first, given what stands before it.\n"
     "\n"
     "Examples:\n"
     "  memslot score --file notes.txt -m notes-mlp\n"
     "  memslot --json score -m base 'The tide is in.'"},
    {"tokenize",
     "Examples:\n"
     "  memslot tokenize 'The tide is in.'\n"
     "  memslot --json tokenize --ids 504,22135"},
    {"attest",
     "Loading and unloading memories leaves the model untouched: the digest over all base tensors "
     "is\n"
     "computed anew and held against the one of when the model was loaded. Differing ones end with "
     "14.\n"
     "\n"
     "Example:\n"
     "  memslot attest"},
    {"status",
     "Which generators are connected, what one of them holds in memory, what it learns.\n"
     "\n"
     "Examples:\n"
     "  memslot status\n"
     "  memslot --json status | jq .generator.memory"},
    {"bench",
     "Measures the running pair, and thereby slows it: speed of decoding and reading, a swap, a "
     "learning\n"
     "step, the round trip of a selection. docs/performance.md says what to expect.\n"
     "\n"
     "Examples:\n"
     "  memslot bench\n"
     "  memslot bench swap -m notes-mlp"},
    {"demo",
     "What quickstart.sh shows: eight texts on invented subjects are learned, unless they were; "
     "each is\n"
     "asked for with base, with its memory and after unloading it, and a passage wanders through "
     "several.\n"
     "\n"
     "Example:\n"
     "  memslot demo samples"},
    {"keygen",
     "Writes FILE (mode 0600) and FILE.pub. A link that leaves the host needs keys on both sides, "
     "and the\n"
     "controller a list of the clients that it lets in (docs/operations.md).\n"
     "\n"
     "Example:\n"
     "  memslot keygen client.key && cat client.key.pub"},
    {"bank ls",
     "Examples:\n"
     "  memslot bank ls\n"
     "  memslot -n notes --json bank ls --source harbour"},
    {"bank show",
     "Example:\n"
     "  memslot bank show notes-mlp"},
    {"bank history",
     "Example:\n"
     "  memslot bank history notes-mlp"},
    {"bank rollback",
     "Nothing is lost: the old version's bytes become a new one.\n"
     "\n"
     "Example:\n"
     "  memslot bank rollback notes-mlp --to 2"},
    {"bank rm",
     "Erases all versions, the source text, the jobs that learned it and the traces in which it "
     "spoke.\n"
     "There is no way back but a backup.\n"
     "\n"
     "Example:\n"
     "  memslot bank rm notes-mlp"},
    {"bank export",
     "The file describes itself and carries a digest of each part (docs/formats/memory.md).\n"
     "\n"
     "Example:\n"
     "  memslot bank export notes-mlp notes.msm"},
    {"bank import",
     "Example:\n"
     "  memslot -n guests bank import notes.msm"},
    {"bank verify",
     "Reads everything: minutes, for a large bank. Damage ends with 13.\n"
     "\n"
     "Example:\n"
     "  memslot bank verify"},
    {"bank backup",
     "While the pair works on. Traces go along; trainings of policies do not.\n"
     "\n"
     "Example:\n"
     "  memslot bank backup /var/backups/memslot/monday"},
    {"bank usage",
     "Example:\n"
     "  memslot bank usage"},
    {"bank restore",
     "Needs no running controller; it runs memslot-controller --restore.\n"
     "\n"
     "Example:\n"
     "  memslot bank restore /var/backups/memslot/monday new-bank"},
    {"jobs ls",
     "Example:\n"
     "  memslot jobs ls --state queued"},
    {"jobs show",
     "Example:\n"
     "  memslot jobs show 0mwtbgejk-2xdieo6omw2ra"},
    {"jobs cancel",
     "What it has learned so far is lost; the memory stays at the version before.\n"
     "\n"
     "Example:\n"
     "  memslot jobs cancel 0mwtbgejk-2xdieo6omw2ra"},
    {"policy load",
     "Sessions that begin from now on follow it; those under way keep theirs. One that does not "
     "fit the\n"
     "generators' model, layer or features is refused (14), and the one before goes on. Its "
     "whitening of\n"
     "keys becomes the bank's, also for `nearest`, until `policy unload`.\n"
     "\n"
     "Example:\n"
     "  memslot train gains.safetensors -o policy.safetensors && memslot policy load "
     "policy.safetensors"},
    {"policy unload",
     "Sessions of `auto` (the default) that begin from now on choose by nearest key, those of "
     "`learned`\n"
     "are refused; those under way keep their policy. It stays in the list and can be loaded "
     "again.\n"
     "\n"
     "Example:\n"
     "  memslot policy unload"},
    {"policy show",
     "Example:\n"
     "  memslot --json policy show | jq .learning.guard"},
    {"policy ls",
     "Example:\n"
     "  memslot policy ls"},
    {"policy feedback",
     "For a controller that learns (--learn-online): what the session has written since the last "
     "feedback is\n"
     "judged, from -1 (bad) to 1 (good). The number is that of the `start` event of generate.\n"
     "\n"
     "Example:\n"
     "  memslot policy feedback 1369094286720630784 0.5"},
    {"trace ls",
     "Examples:\n"
     "  memslot trace ls --memory notes-mlp --since 2026-11-01\n"
     "  memslot trace ls --policy nearest --limit 100"},
    {"trace show",
     "Example:\n"
     "  memslot trace show 12f68c33f3466f8f --candidates"},
    {"trace diff",
     "Example:\n"
     "  memslot trace diff 12f68c33f3466f8f 12f68c33f3466f90"},
    {"trace export",
     "Example:\n"
     "  memslot trace export 12f68c33f3466f8f one.trace"},
    {"trace rm",
     "Example:\n"
     "  memslot trace rm 12f68c33f3466f8f"},
    {"trace replay",
     "The same build on the same machine gives every bit of it again; another one says what "
     "differs first\n"
     "and why (14). A what-if changes one choice, or all of them, and shows both texts with the\n"
     "log-probability of each under both choices.\n"
     "\n"
     "Examples:\n"
     "  memslot trace replay 12f68c33f3466f8f\n"
     "  memslot trace replay 12f68c33f3466f8f --what-if step=3,memory=base\n"
     "  memslot trace replay 12f68c33f3466f8f --policy policy.safetensors"},
};

CLI::App* find(CLI::App& app, std::string_view command) {
  CLI::App* at = &app;
  while (!command.empty()) {
    const std::size_t end = std::min(command.find(' '), command.size());
    at = at->get_subcommand(std::string(command.substr(0, end)));
    command.remove_prefix(std::min(end + 1, command.size()));
  }
  return at;
}

}  // namespace

void add_help(CLI::App& app) {
  for (const Page& page : kPages) find(app, page.command)->footer(page.text);
}

}  // namespace memslot::cli

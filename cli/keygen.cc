#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "shared/transport/keys.h"

namespace memslot::cli {

void add_keygen(CLI::App& app, Context& context) {
  auto* command =
      app.add_subcommand("keygen", "Make a CURVE key pair for links that leave the host");
  auto path = std::make_shared<std::string>();
  command->add_option("file", *path, "The pair (mode 0600); FILE.pub gets the public key")
      ->required();
  command->callback([path, &context] {
    context.run = [path, &context] {
      const Output out = context.output();
      const auto pair = write_keypair(*path);
      if (!pair) return out.fail(pair.error());
      out.result({{"file", *path}, {"public", pair.value().public_key}});
      out.line("public key " + pair.value().public_key);
      return 0;
    };
  });
}

}  // namespace memslot::cli

// SPDX-License-Identifier: Apache-2.0
// A worker for one effect, to be killed: worker-that-dies DSN bank|plain|mail|store URL. Ends when
// it has settled one effect.
#include <chrono>
#include <iostream>
#include <memory>
#include <string>
#include <thread>

#include "outbox/effect_worker.h"
#include "outbox/http_provider.h"
#include "outbox/smtp_provider.h"
#include "outbox/upload_provider.h"

namespace {

std::unique_ptr<outbox::Provider> adapter(const std::string& kind, const std::string& url) {
  if (kind == "mail") {
    return std::make_unique<outbox::SmtpProvider>(
        outbox::SmtpOptions{.url = url, .require_tls = false, .from = "shop@example.com"});
  }
  if (kind == "store") {
    return std::make_unique<outbox::UploadProvider>(outbox::UploadOptions{.origins = {url}});
  }
  return std::make_unique<outbox::HttpProvider>(outbox::HttpOptions{.base_url = url});
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  outbox::EffectWorkerOptions options{.dsn = argv[1]};
  options.accounts.push_back({argv[2], std::nullopt, adapter(argv[2], argv[3])});
  options.idle_first = options.idle_max = std::chrono::milliseconds(20);
  options.on_event = [](const outbox::EffectEvent& event) { std::cerr << event.text << std::endl; };
  outbox::EffectWorker worker(std::move(options));
  std::jthread working([&](std::stop_token stop) { worker.run(stop); });
  const auto settled = [&] {
    const auto s = worker.stats();
    return s.done + s.failed + s.in_doubt + s.needs_review + s.again > 0;
  };
  while (!settled()) std::this_thread::yield();
  return 0;
}

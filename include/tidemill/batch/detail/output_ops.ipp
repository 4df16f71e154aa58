// Bodies of BatchOps and Context: records into files and back. Included by batch.hpp.
#pragma once

#include <mutex>
#include <optional>
#include <string>

#include "tidemill/batch/detail/batch_ops.ipp"
#include "tidemill/core/codec.hpp"
#include "tidemill/core/file_output.hpp"
#include "tidemill/core/text_form.hpp"

namespace tidemill {
namespace detail {

/// Calls what may run a function of the user's type (to_text, operator<<, a codec); errors of ours keep their kind.
template <class F>
TIDEMILL_INLINE void call_user_part(const char* op, const F& f) {
  try {
    f();
  } catch (const Error&) {
    throw;
  } catch (...) {
    throw_user_failure(op);
  }
}

/// The records of object files, a partition each. The files are listed when the number of partitions is first asked
/// for, and read when an action needs them.
template <class T>
class ObjectFileNode final : public PreparedNode<T> {
 public:
  ObjectFileNode(std::shared_ptr<const Scope> scope, std::string path)
      : PreparedNode<T>{std::move(scope)}, path_{std::move(path)} {}
  [[nodiscard]] std::size_t partitions() const override { return std::max<std::size_t>(1, files().size()); }
  [[nodiscard]] std::size_t size_hint() const override {
    return inline_records + 1;
  }  // files are worth the workers' help

 protected:
  void build(std::vector<std::vector<T>>& parts, std::vector<Arena>& arenas) const override {
    const std::vector<std::string>& names = files();
    for_each_partition_of(*this->scope(), names.size(), size_hint(), [&](std::size_t p) {
      ObjectFileReader reader{names[p], this->scope()->runtime->fs};
      while (true) {
        std::optional<T> record;
        call_user_part("object_file", [&] { record = reader.template next<T>(); });
        if (!record) return;
        parts[p].push_back(tidemill::rehome(*std::move(record), arenas[p]));  // it looks at the reader's buffer
      }
    });
  }

 private:
  [[nodiscard]] const std::vector<std::string>& files() const {
    const std::scoped_lock lock{mutex_};
    if (!files_) files_ = part_files(path_, this->scope()->runtime->fs);
    return *files_;
  }

  std::string path_;
  mutable std::mutex mutex_;  // guards files_, which does not change once it is there
  mutable std::optional<std::vector<std::string>> files_;
};

}  // namespace detail

template <class Self, class T>
void BatchOps<Self, T>::save_as_text_file(const std::filesystem::path& path) const {
  static_assert(TextPrintable<T>,
                "save_as_text_file: this record has no text form; give its type `std::string to_text(const T&)` or "
                "operator<< in its own namespace");
  constexpr std::size_t piece = 64 * 1024;
  OutputDirectory output{path.string(), self().node().scope()->runtime->fs};
  detail::run_action(self(), [&](std::size_t p) {
    PartWriter part = output.open_part(p);
    std::string lines;
    detail::run_chain(self(), p, [&](auto&& record) {
      detail::call_user_part("save_as_text_file", [&] { append_text(lines, std::as_const(record)); });
      lines.push_back('\n');
      if (lines.size() < piece) return;
      part.write(lines);
      lines.clear();
    });
    part.write(lines);
    part.close();
  });
  output.commit();
}

template <class Self, class T>
void BatchOps<Self, T>::save_as_object_file(const std::filesystem::path& path) const {
  static_assert(Encodable<T>, "save_as_object_file: this record has no codec; specialise tidemill::Codec for its type");
  OutputDirectory output{path.string(), self().node().scope()->runtime->fs};
  detail::run_action(self(), [&](std::size_t p) {
    ObjectFileWriter part{output.open_part(p)};
    detail::run_chain(self(), p, [&](auto&& record) {
      detail::call_user_part("save_as_object_file", [&] { part.write(std::as_const(record)); });
    });
    part.close();
  });
  output.commit();
}

template <class T>
Batch<T> Context::object_file(const std::filesystem::path& path) const {
  static_assert(Record<T>, "object_file: records are movable objects");
  static_assert(Encodable<T>, "object_file: this record has no codec; specialise tidemill::Codec for its type");
  return Batch<T>{std::make_shared<const detail::ObjectFileNode<T>>(
      std::make_shared<const detail::Scope>(detail::Scope{runtime_, std::nullopt}), path.string())};
}

}  // namespace tidemill

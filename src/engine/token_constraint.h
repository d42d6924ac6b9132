// What a choice may say next: the hook by which structured output rules over sampling.
//
//   Request request{.prompt_token_ids = ids, .constraint = grammar};   // grammar: shared, immutable
//
// The engine makes one TokenConstraint for each choice, asks it for the allowed tokens before each token of the output,
// and tells it which one was taken.
#ifndef SWIFTKV_ENGINE_TOKEN_CONSTRAINT_H_
#define SWIFTKV_ENGINE_TOKEN_CONSTRAINT_H_

#include <cstdint>
#include <memory>
#include <span>

namespace swiftkv {

// Where one choice is. Used by one thread at a time.
class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;
  // Sets the bits of the tokens that may come next, end tokens left aside: token t is bit t % 64 of mask[t / 64].
  // `mask` is zero before, [ceil(vocab_size / 64)]. No bit is set: the output is complete. Unless MayEnd, there is one.
  // False: there is not enough memory; does not throw.
  virtual bool FillMask(std::span<uint64_t> mask) = 0;
  // The output goes on with a token that FillMask allowed. End tokens are not told.
  virtual void Accept(int32_t token_id) = 0;
  // Whether the output may end here.
  virtual bool MayEnd() const = 0;
};

// Makes the constraints of a request's choices; any thread may call it.
class TokenConstraintFactory {
 public:
  virtual ~TokenConstraintFactory() = default;
  virtual std::unique_ptr<TokenConstraint> New() const = 0;
  // Of the model whose tokens it knows.
  virtual int64_t vocab_size() const = 0;
};

}  // namespace swiftkv

#endif  // SWIFTKV_ENGINE_TOKEN_CONSTRAINT_H_

target triple = "x86_64-unknown-linux-gnu"
define i32 @graphc_kernel(ptr %a0, ptr %a1, i64 %a2, i64 %a3, ptr %a4) nounwind "no-builtins" "prefer-vector-width"="512" {
entry1:
  %v11 = alloca [64 x float], align 64
  br label %start2
start2:
  %v3 = getelementptr ptr, ptr %a0, i64 0
  %v4 = load ptr, ptr %v3
  %v5 = getelementptr ptr, ptr %a0, i64 1
  %v6 = load ptr, ptr %v5
  %v9 = icmp slt i64 %a2, %a3
  br i1 %v9, label %b7, label %b8
b7:
  %v10 = phi i64 [ %a2, %start2 ], [ %v41, %b25 ]
  br label %b12
b8:
  call void @llvm.x86.sse.sfence()
  ret i32 0
b12:
  %v14 = phi i64 [ 0, %b7 ], [ %v22, %b12 ]
  %v15 = mul i64 %v14, 18446744073709551615
  %v16 = add i64 63, %v15
  %v17 = mul i64 %v10, 64
  %v18 = add i64 %v17, %v14
  %v19 = getelementptr float, ptr %v4, i64 %v18
  %v20 = load float, ptr %v19, align 4
  %v21 = getelementptr float, ptr %v11, i64 %v16
  store float %v20, ptr %v21, align 4
  %v22 = add nsw i64 %v14, 1
  %v23 = icmp slt i64 %v22, 64
  br i1 %v23, label %b12, label %b13
b13:
  br label %b24
b24:
  %v26 = phi i64 [ 0, %b13 ], [ %v39, %b38 ]
  %v27 = mul i64 %v10, 64
  %v28 = add i64 %v27, %v26
  %v29 = getelementptr float, ptr %v11, i64 %v26
  %v30 = load <16 x float>, ptr %v29, align 4
  %v31 = fmul <16 x float> %v30, splat (float 0x4008000000000000)
  %v32 = getelementptr float, ptr %v6, i64 %v28
  %v33 = ptrtoint ptr %v32 to i64
  %v34 = and i64 %v33, 63
  %v35 = icmp eq i64 %v34, 0
  br i1 %v35, label %b36, label %b37
b25:
  %v41 = add nsw i64 %v10, 1
  %v42 = icmp slt i64 %v41, %a3
  br i1 %v42, label %b7, label %b8
b36:
  store <16 x float> %v31, ptr %v32, align 64, !nontemporal !0
  br label %b38
b37:
  store <16 x float> %v31, ptr %v32, align 4
  br label %b38
b38:
  %v39 = add nsw i64 %v26, 16
  %v40 = icmp slt i64 %v39, 64
  br i1 %v40, label %b24, label %b25
}

declare void @llvm.x86.sse.sfence() 

!0 = !{i32 1}

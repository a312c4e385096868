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
  %v10 = phi i64 [ %a2, %start2 ], [ %v44, %b29 ]
  %v12 = mul i64 %v10, 64
  %v13 = getelementptr float, ptr %v6, i64 %v12
  call void @llvm.prefetch.p0(ptr %v13, i32 0, i32 3, i32 1)
  br label %b14
b8:
  call void @llvm.x86.sse.sfence()
  ret i32 0
b14:
  %v16 = phi i64 [ 0, %b7 ], [ %v26, %b14 ]
  %v17 = add i64 64, %v12
  %v18 = add i64 %v17, %v16
  %v19 = getelementptr float, ptr %v4, i64 %v18
  call void @llvm.prefetch.p0(ptr %v19, i32 0, i32 3, i32 1)
  %v20 = mul i64 %v16, 18446744073709551615
  %v21 = add i64 63, %v20
  %v22 = add i64 %v12, %v16
  %v23 = getelementptr float, ptr %v4, i64 %v22
  %v24 = load float, ptr %v23, align 4
  %v25 = getelementptr float, ptr %v11, i64 %v21
  store float %v24, ptr %v25, align 4
  %v26 = add nsw i64 %v16, 1
  %v27 = icmp slt i64 %v26, 64
  br i1 %v27, label %b14, label %b15
b15:
  br label %b28
b28:
  %v30 = phi i64 [ 0, %b15 ], [ %v42, %b41 ]
  %v31 = add i64 %v12, %v30
  %v32 = getelementptr float, ptr %v11, i64 %v30
  %v33 = load <16 x float>, ptr %v32, align 4
  %v34 = fmul <16 x float> %v33, splat (float 0x4008000000000000)
  %v35 = getelementptr float, ptr %v6, i64 %v31
  %v36 = ptrtoint ptr %v6 to i64
  %v37 = and i64 %v36, 63
  %v38 = icmp eq i64 %v37, 0
  br i1 %v38, label %b39, label %b40
b29:
  %v44 = add nsw i64 %v10, 1
  %v45 = icmp slt i64 %v44, %a3
  br i1 %v45, label %b7, label %b8
b39:
  store <16 x float> %v34, ptr %v35, align 64, !nontemporal !0
  br label %b41
b40:
  store <16 x float> %v34, ptr %v35, align 4
  br label %b41
b41:
  %v42 = add nsw i64 %v30, 16
  %v43 = icmp slt i64 %v42, 64
  br i1 %v43, label %b28, label %b29
}

declare void @llvm.prefetch.p0(ptr, i32, i32, i32) 

declare void @llvm.x86.sse.sfence() 

!0 = !{i32 1}
